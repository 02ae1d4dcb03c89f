"""How a connection ended, and when to come back (WebSocket API, section 7)."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from websockets.exceptions import InvalidStatus

from .error import ValtronicsError

GOING_AWAY = 1001
ABNORMAL = 1006
INVALID_TOKEN = 4401
#: After these coming back would not help.
FINAL = {
    1002: "protocol_error",
    1007: "protocol_error",
    1009: "protocol_error",
    4403: "forbidden",
}


@dataclass
class Ending:
    """How a connection ended, or why there was none; `retry_after` is what the server asked for."""

    error: Exception
    close_code: int = ABNORMAL
    retry_after: float = 0.0

    @classmethod
    def closed(cls, close_code: int, why: str, retry_after: float) -> Ending:
        """One that was closed; the close reason may say when to come back."""
        wait = re.search(r"retry_after=(\d+)", why)
        default = "invalid_token" if close_code == INVALID_TOKEN else "connection_lost"
        message = why or f"the connection ended with {close_code}"
        error = ValtronicsError(FINAL.get(close_code, default), message, close_code=close_code)
        return cls(error, close_code, float(wait[1]) if wait else retry_after)

    @classmethod
    def failed(cls, error: Exception) -> Ending:
        """One that did not come about; the answer to the handshake may say when to come back."""
        wait = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
        return cls(error, retry_after=float(wait) if wait.isdigit() else 0.0)

    @property
    def final(self) -> bool:
        """Whether coming back would not help."""
        return self.close_code in FINAL


class Backoff:
    """Waits longer after each failure, up to a limit, without end."""

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most
        self._failures = 0

    def reset(self) -> None:
        """Begins anew, after a connection that worked."""
        self._failures = 0

    def delay(self, ending: Ending) -> float:
        """Says for how many seconds to wait: as the server said, or as this knows better."""
        backoff = min(self._most, self._least * 2.0 ** min(self._failures, 64)) * random.uniform(0.5, 1)
        self._failures += 1
        if ending.close_code == GOING_AWAY:
            # The server does so for everybody: they come back apart.
            return random.uniform(0, 10 * self._least)
        return max(backoff, ending.retry_after * random.uniform(1, 1.1))

"""Where tokens come from, and which of them the server has refused."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Literal

from .error import ValtronicsError

Reason = Literal["connect", "expiring", "refused"]
#: A token, or how to get one: asked at each connect, when the token is about to expire (`expiring`), and
#: when the server has refused the last one (`refused`). Without a function a refused token is the end.
Token = str | Callable[[Reason], str | Awaitable[str]]


class Tokens:
    """The tokens of a client; one that was refused is never given out again."""

    def __init__(self, source: Token) -> None:
        self._source = source
        self._refused: str | None = None
        #: The last one that was sent.
        self.sent: str | None = None

    @property
    def renewable(self) -> bool:
        """Whether there may be another."""
        return not isinstance(self._source, str)

    @property
    def spent(self) -> bool:
        """Whether the only one was refused."""
        return not self.renewable and self._refused is not None

    def refuse(self) -> None:
        """Notes that the last one was refused."""
        self._refused = self.sent

    async def to_connect(self) -> str:
        """Gets one for a new connection."""
        refused = self._refused is not None and self._refused == self.sent
        return await self._get("refused" if refused else "connect", self._refused)

    async def to_renew(self) -> str:
        """Gets one in place of the one that is in use."""
        return await self._get("expiring", self._refused, self.sent)

    async def _get(self, reason: Reason, *useless: str | None) -> str:
        got = self._source if isinstance(self._source, str) else self._source(reason)
        token = await got if inspect.isawaitable(got) else got
        if token in useless:
            raise ValtronicsError("invalid_token", "there is no new token")
        return token

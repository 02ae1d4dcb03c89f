"""A client of the Valtronics WebSocket API: live telemetry, device status and alerts."""

from __future__ import annotations

import asyncio
from typing import Any

from .client import Client, Status
from .error import ValtronicsError
from .subscription import Message, Subscription
from .token import Reason, Token

__all__ = ["Client", "Message", "Reason", "Status", "Subscription", "Token", "ValtronicsError", "connect"]


class _Shared(Client):
    """A client that several share."""

    users = 0


class _Share(Client):
    """One user's hold on a shared client, of which it has all but `close`: given back once, however often
    it is closed.
    """

    __slots__ = ("_client", "_held")

    def __init__(self, client: _Shared) -> None:
        self.__dict__ = client.__dict__
        self._client, self._held = client, True
        client.users += 1

    async def close(self) -> None:
        if not self._held:
            return
        self._held = False
        self._client.users -= 1
        if self._client.users == 0:
            await self._client.close()


_pool: dict[tuple[object, str, Token], _Shared] = {}


def connect(url: str, token: Token, **options: Any) -> Client:
    """Opens a client, or shares the one that is open to this URL with this token (the same text or the
    same function). It closes when everybody who got it has closed it.
    """
    for key in [key for key, client in _pool.items() if client.status == "closed"]:
        del _pool[key]
    key = (asyncio.get_running_loop(), url, token)
    if key not in _pool:
        _pool[key] = _Shared(url, token, **options)
    return _Share(_pool[key])

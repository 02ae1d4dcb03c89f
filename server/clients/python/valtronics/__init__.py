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
    """A client that several share: it closes with the last of them."""

    users = 1

    async def close(self) -> None:
        self.users -= 1
        if self.users == 0:
            await super().close()


_pool: dict[tuple[object, str, Token], _Shared] = {}


def connect(url: str, token: Token, **options: Any) -> Client:
    """Opens a client, or shares the one that is open to this URL with this token (the same text or the
    same function). It closes when everybody who got it has closed it.
    """
    for key in [key for key, client in _pool.items() if client.status == "closed"]:
        del _pool[key]
    key = (asyncio.get_running_loop(), url, token)
    client = _pool.get(key)
    if client is None:
        client = _pool[key] = _Shared(url, token, **options)
    else:
        client.users += 1
    return client

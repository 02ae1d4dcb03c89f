"""One subscription: what it asks for, how far it has come, and the messages that wait for its reader.

It knows no socket: the client hands it responses and messages, and sends what it asks for.

Events come in order, after the snapshot. So `since` alone says what has come, for asking again after a
reconnect and for telling repeats; except while a snapshot is under way, whose end nothing marks. Until
it is known to be over the subscription is unsettled, and would begin with a snapshot again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from .error import ValtronicsError

#: How many messages may wait for a reader; a subscription that is read more slowly ends.
MOST_WAITING = 10_000

Message = dict[str, Any]


class Subscription:
    """One subscription, through all reconnects: after each one it goes on where it was (alerts,
    devices), or with the present state (telemetry, and where the server no longer knows what was missed).

    `async for` gives its messages, in order, to one reader; at most 10,000 wait for it, beyond that it
    ends with `overflow`. `async with` unsubscribes at the end.
    """

    def __init__(
        self,
        channel: str,
        options: dict[str, Any],
        on_message: Callable[[Message], object] | None,
        unsubscribe: Callable[[Subscription], asyncio.Event],
    ) -> None:
        # Filters and options stand at the top, under `filters`, or both, as in the API.
        shape = {"batch": True, **options, **options.get("filters", {})}
        shape.pop("filters", None)
        devices = shape.pop("device_id", None)
        self.channel = channel
        #: Up to which event everything has come, and in which log: to go on from in another process.
        self.since: int | None = shape.pop("since", None)
        self.log: str | None = shape.pop("log", None)
        #: The devices whose keys it holds; `None` for all.
        self.devices: list[Any] | None = None
        if devices is not None:
            many = devices if isinstance(devices, (list, tuple, set, range)) else [devices]
            self.devices = list(dict.fromkeys(many))
        #: Whether the server has answered it on the connection that is open now.
        self.live = False
        self.ended = False
        #: The server's first response, or a `ValtronicsError`.
        self.response: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        # Whoever does not look at it hears of a failure through the reader and `on_error`.
        self.response.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.asked = 0
        self._shape = shape
        self._settled = self.since is not None
        # Events beyond `since` that a snapshot has shown already.
        self._shown: set[int] = set()
        self._on_message = on_message
        self._unsubscribe = unsubscribe
        self._error: ValtronicsError | None = None
        self._waiting: deque[Message] = deque()
        self._wake = asyncio.Event()

    async def unsubscribe(self) -> None:
        """Ends it; returns when nothing more comes."""
        await self._unsubscribe(self).wait()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unsubscribe()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        while not self._waiting:
            if self._error:
                raise self._error
            if self.ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()

    # What follows is the client's.

    @property
    def unsettled(self) -> bool:
        """Whether a snapshot of events is under way, as far as one can tell."""
        return self.live and not self._settled and self.since is not None

    def request(self) -> Message:
        """Makes the request that begins it, or goes on where it was."""
        request = {"type": "subscribe", "channel": self.channel, **self._shape}
        if self.devices is not None:
            request["device_id"] = self.devices
        if self._settled:
            request["since"] = self.since
            if self.log is not None:
                request["log"] = self.log
        return request

    def accepted(self, response: Message) -> None:
        """Takes in the response to its request."""
        self.live = True
        self.log = response.get("log")
        if not response.get("resumed"):
            self.since = response.get("seq")
            self._settled = self.since is not None and self._shape.get("snapshot") is False
            self._shown.clear()
        if not self.response.done():
            self.response.set_result(response)

    def is_new(self, message: Message) -> bool:
        """Tells whether a message of its own is no repeat."""
        seq = message.get("seq")
        if seq is None:
            return True
        ahead = self.since is None or seq > self.since
        if not message.get("snapshot"):
            return ahead and seq not in self._shown
        if ahead:
            self._shown.add(seq)
        return True

    def settle(self) -> None:
        """Notes that its snapshot is over."""
        self._settled = True

    def advance(self, seq: int) -> None:
        """Notes that everything of its channel up to `seq` has come."""
        if not self.live:
            return
        self._settled = True
        self.since = max(self.since or 0, seq)
        self._shown = {shown for shown in self._shown if shown > seq}

    def push(self, message: Message) -> bool:
        """Hands a message to the reader; false when too many wait."""
        if self._on_message:
            # An exception of the callback is the program's own, and stops nothing here.
            asyncio.get_running_loop().call_soon(self._on_message, message)
            return True
        self._waiting.append(message)
        self._wake.set()
        return len(self._waiting) <= MOST_WAITING

    def end(self, error: ValtronicsError | None = None) -> None:
        """Ends it; without an error its reader simply comes to an end."""
        self.ended = True
        self.live = False
        self._error = self._error or error
        if not self.response.done():
            self.response.set_exception(error or ValtronicsError("closed", "it was unsubscribed"))
        self._wake.set()

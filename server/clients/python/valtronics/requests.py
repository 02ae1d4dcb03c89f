"""Requests that wait: for a connection, for their turn, for their answer.

They go out in batches, in order, a little slower than the server's limits allow. Those of one turn of
the event loop share a batch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .error import ValtronicsError, refusal
from .subscription import Message

#: What the server takes in one batch and in one message (WebSocket API, section 6).
BATCH_ITEMS = 50
MESSAGE_BYTES = 1024
#: The server takes 100 a second; the rest is room for pings, `auth` and a network that bunches them.
SECONDS_PER_ITEM = 0.012
#: How long to wait when it takes fewer and says so.
RATE_LIMITED_SECONDS = 1.0
#: How many may wait: twice what a server takes as subscriptions; one more fails at once.
MOST = 2000


def encode(message: Message) -> str:
    """Writes a message as it goes over the wire."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


@dataclass
class Request:
    """A request; `done` or `fail` is called once, or `gone` when the connection ends first: one
    without `gone` is asked again on the next connection. One without `done` has no answer."""

    message: Message
    fail: Callable[[ValtronicsError], object]
    done: Callable[[Message], object] | None = None
    gone: Callable[[], object] | None = None
    sent: bool = False


class Requests:
    """The requests of a client."""

    def __init__(self) -> None:
        self._waiting: dict[int, Request] = {}
        self._next_id = 1
        self._work = asyncio.Event()
        self._pause = 0.0
        self._ended: ValtronicsError | None = None

    def ask(self, request: Request) -> int:
        """Asks, now or on the next connection; returns an id for `cancel`."""
        number, self._next_id = self._next_id, self._next_id + 1
        if request.done:
            request.message = {**request.message, "id": number}
        if self._ended:
            request.fail(self._ended)
        elif len(encode(request.message).encode()) > MESSAGE_BYTES:
            why = f"a {request.message['type']} takes at most {MESSAGE_BYTES} bytes: ask in parts"
            request.fail(ValtronicsError("message_too_large", why))
        elif len(self._waiting) >= MOST:
            request.fail(ValtronicsError("overflow", f"{MOST} requests wait already"))
        else:
            self._waiting[number] = request
            self._work.set()
        return number

    def cancel(self, number: int) -> None:
        """Forgets a request; its answer is nobody's."""
        self._waiting.pop(number, None)

    def answer(self, response: Message) -> ValtronicsError | None:
        """Takes in a response; returns the error of one that nobody waits for."""
        number = response.get("id", 0)
        request = self._waiting.get(number)
        error = refusal(response) if "error" in response else None
        if request is None or request.done is None:
            return error
        if error and error.code == "rate_limited":
            request.sent, self._pause = False, RATE_LIMITED_SECONDS
            self._work.set()
            return None
        del self._waiting[number]
        if error:
            request.fail(error)
        else:
            request.done(response)
        return None

    async def send(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Sends, for as long as a connection lasts."""
        while True:
            await self._work.wait()
            await asyncio.sleep(self._pause)
            self._pause = 0.0
            waiting = [(number, one) for number, one in self._waiting.items() if not one.sent]
            batch = waiting[:BATCH_ITEMS]
            if not batch:
                self._work.clear()
                continue
            for number, request in batch:
                request.sent = True
                if request.done is None:
                    del self._waiting[number]
            messages = [request.message for _, request in batch]
            one = len(messages) == 1
            await send(encode(messages[0] if one else {"type": "batch", "messages": messages}))
            await asyncio.sleep(len(batch) * SECONDS_PER_ITEM)

    def disconnected(self) -> None:
        """Prepares for the next connection."""
        self._pause = 0.0
        self._work.set()
        for number, request in list(self._waiting.items()):
            request.sent = False
            if request.gone:
                del self._waiting[number]
                request.gone()

    def end(self, error: ValtronicsError) -> None:
        """Fails all of them, and those that come later."""
        self._ended = error
        ended, self._waiting = self._waiting, {}
        for request in ended.values():
            request.fail(error)

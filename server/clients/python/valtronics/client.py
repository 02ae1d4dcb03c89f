"""The client: a connection that is kept, and what comes over it, to whom it is for.

What the program wants stands on the board and among the requests, connected or not; whenever a
connection is authenticated all of it is sent. So the first connection and the hundredth are one path.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Literal

import websockets.asyncio.client as websockets
from websockets.exceptions import ConnectionClosed

from .board import Board
from .ending import ABNORMAL, INVALID_TOKEN, Backoff, Ending
from .error import ValtronicsError, refusal
from .requests import Request, Requests, encode
from .subscription import Message, Subscription
from .token import Token, Tokens

#: How soon to ask whether a snapshot is over.
SETTLE_SECONDS = 1.0
#: How soon to renew a token again: the server gives a minute and a half, and tokens may live shorter.
REFRESH_SECONDS = 10.0
#: A connection that lived so long has worked: the next backoff begins anew.
WORKED_SECONDS = 10.0
#: How long the server may take to say goodbye.
GOODBYE_SECONDS = 2.0

Status = Literal["connecting", "open", "waiting", "closed"]


async def _happens(event: asyncio.Event, within: float) -> bool:
    # Not `wait_for`: before Python 3.12 it may swallow a cancellation.
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=within)
        return waiting.done()
    finally:
        waiting.cancel()


class Client:
    """A connection that is kept, until `close`, or until coming back would not help (status `closed`).

    Times are in seconds: `heartbeat` is how often to ask whether the connection lives, `timeout` how long
    an answer may take before it is given up, `backoff` how long to wait before coming back, doubling from
    the first to the second. Everything else goes to `websockets.asyncio.client.connect`.

    The handlers are called from the event loop: `on_status(status, error)`; `on_subscribed(subscription,
    response)`, at first and after a reconnect (see its `resumed`); `on_message(message)`, any, once,
    whoever reads it besides; `on_lagged(message)`, when this client reads too slowly; `on_error(error)`,
    when something was refused, or could not be renewed, and the client goes on.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        heartbeat: float = 25.0,
        timeout: float = 20.0,
        backoff: tuple[float, float] = (0.5, 30.0),
        on_status: Callable[[Status, Exception | None], object] | None = None,
        on_subscribed: Callable[[Subscription, Message], object] | None = None,
        on_message: Callable[[Message], object] | None = None,
        on_lagged: Callable[[Message], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        **connection: Any,
    ) -> None:
        self.url = url
        self.status: Status = "waiting"
        #: When the token expires, RFC 3339.
        self.expires_at: str | None = None
        self._heartbeat, self._timeout = heartbeat, timeout
        self._tokens, self._backoff = Tokens(token), Backoff(*backoff)
        self._on_status, self._on_subscribed, self._on_message = on_status, on_subscribed, on_message
        self._on_lagged, self._on_error = on_lagged, on_error
        self._options = {"ping_interval": None, "close_timeout": GOODBYE_SECONDS, **connection}
        self._loop = asyncio.get_running_loop()
        self._board = Board()
        self._requests = Requests()
        self._socket: websockets.ClientConnection | None = None
        self._opened, self._heard = asyncio.Event(), asyncio.Event()
        # A snapshot has begun.
        self._snapshot = asyncio.Event()
        # Subscriptions whose snapshot is over if none of it comes before the pong of the last beat.
        self._calm: list[Subscription] = []
        self._beats = 0
        self._retry_after = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -REFRESH_SECONDS
        self._task = self._loop.create_task(self._run())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def subscribe(
        self,
        channel: str,
        options: dict[str, Any] | None = None,
        on_message: Callable[[Message], object] | None = None,
        **more: Any,
    ) -> Subscription:
        """Subscribes, now or as soon as there is a connection; filters and options may be keywords.

        Each message goes to `on_message`, or waits to be iterated over. A connection holds one
        subscription for each channel and device, or channel and all devices: a newer one ends the older
        with `replaced`.
        """
        options = {**(options or {}), **more}
        subscription = Subscription(channel, options, on_message, self._end)
        if self.status == "closed":
            subscription.end(ValtronicsError("closed", "the client is closed"))
            return subscription
        for replaced in self._board.put(subscription):
            self._requests.cancel(replaced.asked)
            replaced.end(ValtronicsError("replaced", "a newer subscription took its place"))
        if self._opened.is_set():
            self._ask(subscription)
        return subscription

    async def ping(self) -> Message:
        """Returns the `pong`, when the server has answered on this connection or a later one."""
        pong: asyncio.Future[Message] = self._loop.create_future()
        message = {"type": "ping", "timestamp": datetime.now(timezone.utc).isoformat()}
        number = self._requests.ask(Request(message, pong.set_exception, pong.set_result))
        try:
            return await pong
        finally:
            self._requests.cancel(number)

    def report_error(self, error: object, data: Any = None) -> None:
        """Puts one line into the server's log."""
        message = {"type": "error_report", "error": str(error), "data": data}
        self._requests.ask(Request(message, self._report))

    async def close(self) -> None:
        """Ends the connection, all subscriptions and all tasks."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._stop(None)

    # Subscriptions.

    def _ask(self, subscription: Subscription) -> None:
        def done(response: Message) -> None:
            subscription.accepted(response)
            self._call(self._on_subscribed, subscription, response)
            if subscription.unsettled:
                self._snapshot.set()

        def fail(error: ValtronicsError) -> None:
            self._fail(subscription, error)

        # On the next connection it is asked for anew, from where it is then.
        request = Request(subscription.request(), fail, done, gone=lambda: None)
        subscription.asked = self._requests.ask(request)

    def _end(self, subscription: Subscription, error: ValtronicsError | None = None) -> asyncio.Event:
        """Ends a subscription, and tells the server; what it returns is set when nothing more comes."""
        over = asyncio.Event()
        told = self._opened.is_set() and not subscription.ended
        self._drop(subscription, error)
        if not told:
            over.set()
            return over
        channel, devices = subscription.channel, subscription.devices
        message: Message = {"type": "unsubscribe", "channel": channel}
        if devices is not None:
            message["device_id"] = devices
        # However it ends, nothing of it is subscribed any more.
        self._requests.ask(Request(message, lambda _: over.set(), lambda _: over.set(), over.set))
        if devices is None:
            # It was told as the whole channel: what else there is of it is asked for again.
            for other in self._board.of(channel):
                self._ask(other)
        return over

    def _fail(self, subscription: Subscription, error: ValtronicsError) -> None:
        """Ends a subscription of which the server holds nothing any more."""
        self._drop(subscription, error)
        self._report(error)

    def _drop(self, subscription: Subscription, error: ValtronicsError | None) -> None:
        self._board.remove(subscription)
        self._requests.cancel(subscription.asked)
        subscription.end(error)

    # What comes.

    def _receive(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "batch":
            for one in message["messages"]:
                self._receive(one)
        elif kind == "auth_response":
            answered = self._authenticated if message["success"] else self._unauthenticated
            answered(message)
        elif kind == "auth_expiring":
            self._refresh_soon()
        elif kind == "subscribe_response" and "id" not in message and not message["success"]:
            # What has no id the server did by itself: a right that a new token took away.
            self._revoked(message)
        elif kind in ("subscribe_response", "unsubscribe_response", "error"):
            self._answer(message)
        elif kind == "pong":
            if message.get("timestamp") == str(self._beats):
                for subscription in self._calm:
                    subscription.settle()
            self._answer(message)
        elif kind == "lagged":
            self._call(self._on_lagged, message)
        else:
            self._deliver(message)

    def _answer(self, response: Message) -> None:
        if error := self._requests.answer(response):
            self._report(error)

    def _revoked(self, response: Message) -> None:
        for device in response.get("filters", {}).get("device_id", [None]):
            for subscription in self._board.release(response["channel"], device):
                self._fail(subscription, refusal(response))

    def _deliver(self, message: Message) -> None:
        subscription = self._board.holder_of(message)
        is_new = subscription is None or subscription.is_new(message)
        if message.get("snapshot"):
            self._calm = []
        elif "seq" in message:
            for one in self._board.of(message["channel"]):
                one.advance(message["seq"])
        if not is_new:
            return
        self._call(self._on_message, message)
        if subscription and not subscription.push(message):
            error = ValtronicsError("overflow", "its messages were not read")
            self._end(subscription, error)
            self._report(error)

    # The token.

    def _authenticated(self, response: Message) -> None:
        self.expires_at = response["expires_at"]
        if self._opened.is_set():
            return
        self._opened.set()
        self._set_status("open")
        for subscription in self._board:
            self._ask(subscription)

    def _unauthenticated(self, response: Message) -> None:
        self._retry_after = response.get("retry_after", 0.0)
        self._report(refusal(response))
        if response["error"] == "invalid_token":
            self._tokens.refuse()
            if self._opened.is_set():
                self._refresh_soon()

    def _refresh_soon(self) -> None:
        if self._tokens.renewable:
            if self._refreshing:
                self._refreshing.cancel()
            self._refreshing = self._loop.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Renews the token of a live connection; until that succeeds the old one holds, then 4401 comes."""
        while True:
            await asyncio.sleep(self._refreshed_at + REFRESH_SECONDS - self._loop.time())
            self._refreshed_at = self._loop.time()
            try:
                return await self._authenticate(await self._tokens.to_renew())
            except Exception as error:  # Whatever the program's function may raise.
                self._report(error)

    async def _authenticate(self, token: str) -> None:
        self._tokens.sent = token
        await self._send({"type": "auth", "token": token})

    # The connection.

    async def _run(self) -> None:
        """Comes back again and again, until that would not help."""
        error: Exception | None = None
        try:
            while error is None:
                self._set_status("connecting")
                begin = self._loop.time()
                ending = await self._connection()
                if self._opened.is_set() and self._loop.time() - begin >= WORKED_SECONDS:
                    self._backoff.reset()
                self._disconnected()
                if ending.close_code == INVALID_TOKEN:
                    self._tokens.refuse()
                if ending.final or self._tokens.spent:
                    error = ending.error
                else:
                    self._set_status("waiting", ending.error)
                    await asyncio.sleep(self._backoff.delay(ending))
        finally:
            self._stop(error)

    async def _connection(self) -> Ending:
        """Lives through one connection."""
        try:
            token = await self._tokens.to_connect()
            dial = websockets.connect(self.url, open_timeout=self._timeout, **self._options)
            self._socket = socket = await dial
        except Exception as error:  # Whatever the network, or the program's own function, may raise.
            return Ending.failed(error)
        parts = (self._read(socket), self._write(socket, token), self._beat())
        tasks = [self._loop.create_task(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            failures = await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()
        for failure in failures:
            if isinstance(failure, Exception) and not isinstance(failure, ConnectionClosed):
                return Ending(failure)
        code, why = socket.close_code or ABNORMAL, socket.close_reason or ""
        return Ending.closed(code, why, self._retry_after)

    async def _send(self, message: Message) -> None:
        if self._socket:
            await self._socket.send(encode(message))

    async def _read(self, socket: websockets.ClientConnection) -> None:
        async for frame in socket:
            self._heard.set()
            self._receive(json.loads(frame))

    async def _write(self, socket: websockets.ClientConnection, token: str) -> None:
        await self._authenticate(token)
        await self._opened.wait()
        await self._requests.send(socket.send)

    async def _beat(self) -> None:
        """Asks whether the connection lives, and so whether a snapshot is over; fails when it is dead."""
        if not await _happens(self._opened, self._timeout):
            raise ValtronicsError("timeout", "no answer to auth")
        pause = self._heartbeat
        while True:
            if await _happens(self._snapshot, pause):
                self._snapshot.clear()
                await asyncio.sleep(SETTLE_SECONDS)
            self._beats += 1
            self._calm = [subscription for subscription in self._board if subscription.unsettled]
            pause = SETTLE_SECONDS if self._calm else self._heartbeat
            self._heard.clear()
            await self._send({"type": "ping", "timestamp": str(self._beats)})
            if not await _happens(self._heard, self._timeout):
                raise ValtronicsError("timeout", "no answer to a ping")

    def _disconnected(self) -> None:
        self._socket = None
        self._opened.clear()
        self._snapshot.clear()
        self._calm = []
        self._retry_after = 0.0
        self._refreshed_at = -REFRESH_SECONDS
        if self._refreshing:
            self._refreshing.cancel()
        for subscription in self._board:
            subscription.live = False
        self._requests.disconnected()

    def _stop(self, error: Exception | None) -> None:
        if self.status == "closed":
            return
        self._disconnected()
        final = error if isinstance(error, ValtronicsError) else None
        for subscription in self._board:
            self._drop(subscription, final)
        self._requests.end(final or ValtronicsError("closed", "the client is closed"))
        self._set_status("closed", error)

    # Handlers.

    def _set_status(self, status: Status, error: Exception | None = None) -> None:
        self.status = status
        self._call(self._on_status, status, error)

    def _report(self, error: Exception) -> None:
        self._call(self._on_error, error)

    def _call(self, handler: Callable[..., object] | None, *arguments: object) -> None:
        # An exception of a handler is the program's own, and stops nothing here.
        if handler:
            self._loop.call_soon(handler, *arguments)

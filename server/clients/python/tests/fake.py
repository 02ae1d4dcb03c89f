"""A server that does what a script says, for what a real one cannot be made to do at will."""

import asyncio
import json
import time

from websockets.asyncio.server import serve


class Fake:
    """Gives each connection and its number to `script`, which may set `answer` and send."""

    def __init__(self, script=None, **options):
        self.script, self.options = script, options
        #: Frames and connections so far: what came, parsed, and when.
        self.frames, self.connects = [], []
        self.connection = None

    async def __aenter__(self):
        self.server = await serve(self.handle, "127.0.0.1", 0, close_timeout=0.1, **self.options)
        host, port = self.server.sockets[0].getsockname()
        self.url = f"ws://{host}:{port}/ws"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def handle(self, socket):
        self.connects.append(time.monotonic())
        self.connection = connection = Connection(socket)
        if self.script:
            result = self.script(connection, len(self.connects))
            if asyncio.iscoroutine(result):
                await result
        async for frame in socket:
            message = json.loads(frame)
            self.frames.append(message)
            for request in message.get("messages", [message]):
                response = connection.answer(request)
                if asyncio.iscoroutine(response):
                    response = await response
                if response:
                    await connection.send(response)


class Connection:
    def __init__(self, socket):
        self.socket = socket
        self.answer = self.usual

    def usual(self, request):
        """What a server answers."""
        kind = request["type"]
        if kind == "auth":
            return {"type": "auth_response", "success": True, "expires_at": "2100-01-01T00:00:00Z"}
        if kind == "ping":
            return {"type": "pong", **{key: request[key] for key in ("timestamp", "id") if key in request}}
        if kind == "error_report":
            return None
        seq = {"seq": 10, "log": "l"} if request["channel"] in ("alerts", "devices") else {}
        response = {"type": f"{kind}_response", "success": True, "channel": request["channel"]}
        return {**response, **seq, "id": request["id"]}

    async def send(self, message):
        await self.socket.send(json.dumps(message))

    async def close(self, code, reason=""):
        await self.socket.close(code, reason)

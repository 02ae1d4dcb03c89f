"""What the torture test speaks by itself: MQTT, HTTP, WebSocket, and nothing at all.

A proxy that passes connections on as badly as it is told, a publisher, and readers of the server's
two interfaces; of each protocol only what that takes.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import struct
import urllib.request

HOST = "127.0.0.1"
# How many messages a second all devices publish together.
RATE = 200
# How many readings of a device an alert's condition holds, and then does not.
HALF_WAVE = 40


class Packets:
    """Cuts a stream into MQTT packets (MQTT 3.1.1, section 2.2)."""

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes):
        self.data += data
        while (start := self.start()) and len(self.data) >= start[0] + start[1]:
            begin, size = start
            yield self.data[0], self.data[begin : begin + size]
            self.data = self.data[begin + size :]

    def start(self) -> tuple[int, int] | None:
        """Returns where the content of the first packet begins, and its length."""
        size = 0
        for place, byte in enumerate(self.data[1:5]):
            size |= (byte & 127) << 7 * place
            if byte < 128:
                return place + 2, size
        return None


class Proxy:
    """Passes connections on to a port, as well as `mode` lets it."""

    def __init__(self, target: int, watch=lambda: (None, None)) -> None:
        self.target, self.watch, self.mode = target, watch, "whole"
        self.ends: set[asyncio.StreamWriter] = set()

    async def listen(self) -> int:
        self.server = await asyncio.start_server(self.serve, HOST, 0)
        return self.server.sockets[0].getsockname()[1]

    def set(self, mode: str) -> None:
        self.mode = mode
        if mode in ("cut", "reset"):
            for end in self.ends:
                if mode == "reset":
                    linger = struct.pack("ii", 1, 0)
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                end.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self.ends.add(writer)
        try:
            if self.mode != "cut":
                far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
                ends.add(far_writer)
                self.ends.add(far_writer)
                out, back = self.watch()
                pumps = self.pump(reader, far_writer, out), self.pump(far_reader, writer, back)
                await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            pass  # Who listens there was killed, or this is the end.
        finally:
            self.ends -= ends
            for end in ends:
                end.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                while self.mode == "frozen":
                    await asyncio.sleep(0.05)
                if self.mode == "delayed":
                    await asyncio.sleep(random.uniform(0.1, 0.5))
                elif self.mode == "narrow":
                    await asyncio.sleep(len(data) / 8_000)
                if seen:
                    seen(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


async def publish(port: int, counts: dict[str, int], stop: asyncio.Event) -> None:
    """Publishes with QoS 1; a number that a killed broker did not take is never seen again."""
    name = b"torture"
    hello = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        # It ends with the connection.
        answers = asyncio.create_task(reader.read(-1))
        with contextlib.suppress(OSError):
            writer.write(bytes([0x10, len(hello)]) + hello)
            packet = 0
            while not stop.is_set() and not answers.done():
                device = random.choice(list(counts))
                n = counts[device]
                counts[device] += 1
                topic, payload = f"torture/{device}".encode(), {"n": n, "hot": n // HALF_WAVE % 2}
                packet = packet % 65535 + 1
                body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet)
                body += json.dumps(payload).encode()
                assert len(body) < 128, "its length takes one byte"
                writer.write(bytes([0x32, len(body)]) + body)
                await writer.drain()
                await asyncio.sleep(1 / RATE)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await answers


def pages(url: str, token: str, items: str):
    """Reads all pages of an answer of the HTTP API."""
    cursor = ""
    while True:
        call = urllib.request.Request(url + cursor, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(call, timeout=20) as answer:
            page = json.load(answer)
        yield from page[items]
        if page["next"] is None:
            return
        cursor = f"{'&' if '?' in url else '?'}cursor={page['next']}"


class Events:
    """Reads the whole log of a channel over the WebSocket API."""

    def __init__(self, port: int, token: str) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=20)
        self.sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dG9ydHVyZSBrZXkgaGVyZQ==\r\n\r\n".encode()
        )
        self.file = self.sock.makefile("rb")
        while self.file.readline() not in (b"\r\n", b""):
            pass
        self.send({"type": "auth", "token": token})

    def send(self, message: dict) -> None:
        text, mask = json.dumps(message).encode(), os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text))
        self.sock.sendall(b"\x81" + size + mask + masked)

    def messages(self):
        while head := self.file.read(2):
            length = head[1]
            if length >= 126:
                length = int.from_bytes(self.file.read(2 if length == 126 else 8), "big")
            data = self.file.read(length)
            if head[0] == 0x81:
                yield json.loads(data)

    def of(self, channel: str) -> list[dict]:
        self.send({"type": "subscribe", "channel": channel, "since": 0})
        events, last = [], None
        for message in self.messages():
            if message["type"] == "subscribe_response":
                assert message["success"] and message["resumed"], message
                last = message["seq"]
            elif message.get("channel") == channel:
                events.append(message)
            if last is not None and len(events) >= last:
                return events
        raise AssertionError(f"{len(events)} of {last} events of {channel}, then the end")

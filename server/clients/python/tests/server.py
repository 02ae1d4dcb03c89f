"""The real server for tests: on a free port, in a directory of its own, with an agent that feeds it."""

import asyncio
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import websockets.asyncio.client as websockets

HERE = pathlib.Path(__file__).parent
PROGRAM = os.environ.get("VALTRONICS_SERVER", HERE.parents[3] / "target/debug/valtronics-server")

# Tests connect more often than users.
CONFIG = """
data_dir = "data"
[limits]
connects_per_minute = 1000
handshakes_per_minute_per_address = 1000
[rules]
files = ["rules.toml"]
"""
RULES = """
[[rule]]
name = "hot"
metric = "temperature"
kind = "threshold"
steps = [{ above = 50, severity = "warning" }, { above = 90, severity = "critical" }]
"""


class Server:
    """A server that ends with its `async with`."""

    async def __aenter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="valtronics-"))
        (self.dir / "server.toml").write_text(CONFIG)
        (self.dir / "rules.toml").write_text(RULES)
        self.agents = []
        await self.run("127.0.0.1:0")
        return self

    async def __aexit__(self, *_):
        for agent in self.agents:
            await agent.close()
        await self.kill()
        shutil.rmtree(self.dir)

    @property
    def url(self):
        return f"ws://{self.address}/ws"

    async def run(self, address=None):
        """Runs it; again at the same address after `kill`."""
        arguments = ["run", "--config", self.dir / "server.toml", "--listen", address or self.address]
        self.process = await asyncio.create_subprocess_exec(
            PROGRAM, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        async for line in self.process.stderr:
            message = json.loads(line)
            if message["message"] == "listening":
                self.address = message["address"]
                break
        self.log = asyncio.create_task(self.process.stderr.read())

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.log

    def lose_data(self):
        """Makes a new server of it, which knows its tokens and nothing else."""
        secret = (self.dir / "data/secret").read_bytes()
        shutil.rmtree(self.dir / "data")
        (self.dir / "data").mkdir()
        (self.dir / "data/secret").write_bytes(secret)
        (self.dir / "data/secret").chmod(0o600)

    def token(self, sub, *options):
        command = [PROGRAM, "token", "--sub", sub, "--config", self.dir / "server.toml", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    async def agent(self):
        agent = Agent(await websockets.connect(f"ws://{self.address}/uplink"))
        self.agents.append(agent)
        await agent.say({"type": "auth", "token": self.token("plant", "--scope", "uplink")})
        return agent


class Agent:
    """An agent that waits until the server has committed what it said."""

    def __init__(self, socket):
        self.socket = socket
        self.seq = 0

    async def say(self, message):
        await self.socket.send(json.dumps(message))
        return json.loads(await self.socket.recv())

    async def reading(self, device, metric, value):
        self.seq += 1
        readings = [{"metric": metric, "value": value}]
        message = {"type": "readings", "seq": self.seq, "device": device, "readings": readings}
        assert (await self.say(message))["type"] == "ack"

    async def status(self, device, status):
        self.seq += 1
        message = {"type": "status", "seq": self.seq, "device": device, "status": status, "reason": "so"}
        assert (await self.say(message))["type"] == "ack"

    async def close(self):
        await self.socket.close()


async def example(url, token):
    """Runs the program beside this file; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-B", HERE / "example.py", url, token, stdout=subprocess.PIPE
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    return output.decode()

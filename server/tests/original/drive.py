"""Lets the original's Python client, unchanged, see one of everything: drive.py URL TOKEN READY_FILE

Touches READY_FILE once it is subscribed to all of it; then somebody must raise a warning and a critical
alert and take a device away. Exits 0 when every kind has come as the documentation shows it.
"""
import asyncio
import pathlib
import sys

from valtronics_client import ValtronicsWebSocketClient

SECONDS = 60
url, token, ready = sys.argv[1:]


class Watcher(ValtronicsWebSocketClient):
    """The client with what its users are to put in: the handlers."""

    def __init__(self):
        super().__init__(url, token)
        self.missing = {"telemetry", "system", "alert", "device"}

    def saw(self, kind):
        self.missing.discard(kind)
        if self.missing <= {"alert", "device"}:
            pathlib.Path(ready).touch()
        if not self.missing:
            self.running = False

    async def handle_telemetry_update(self, data):
        await super().handle_telemetry_update(data)
        assert data["device_id"] == 1, "asked for device 1 only"
        for metric in data["telemetry"].values():
            assert {"value", "unit", "timestamp"} <= metric.keys()
        self.saw("telemetry")

    async def handle_alert(self, data):
        await super().handle_alert(data)
        assert data["severity"] == "critical", "asked for critical alerts only"
        if not data.get("snapshot"):
            assert data["title"] == "Boiler too hot" and data["metadata"]["actual_value"] == 95.0
            self.saw("alert")

    async def handle_device_status_update(self, data):
        await super().handle_device_status_update(data)
        if not data.get("snapshot") and data["new_status"] == "offline":
            assert data["old_status"] == "online" and data["reason"]
            self.saw("device")

    async def handle_system_status_update(self, data):
        await super().handle_system_status_update(data)
        assert {"cpu_usage", "memory_usage", "disk_usage", "active_connections"} <= data["metrics"].keys()
        self.saw("system")


async def main():
    client = Watcher()
    await client.connect()
    await client.subscribe("telemetry", {"device_id": 1})
    await client.subscribe("alerts", {"severity": "critical"})
    await client.subscribe("devices")
    await client.subscribe("system")
    await client.ping()
    try:
        await asyncio.wait_for(client.listen(), SECONDS)
    finally:
        await client.disconnect()
    # listen() prints what a handler raised and returns, so what is missing says it.
    assert not client.missing, f"never came, or not as documented: {client.missing}"


asyncio.run(main())

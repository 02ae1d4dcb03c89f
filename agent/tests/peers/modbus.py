"""Lets the agent read a Modbus server that others wrote (pymodbus), and compares the values.

modbus.py AGENT PORT TTY SERVER_TTY: over TCP at PORT, over RTU at PORT + 1, and on the terminal TTY whose
other end is SERVER_TTY. The server encodes the values itself, and has nothing at unit 9.
"""

import asyncio
import json
import logging
import pathlib
import sys
import tempfile

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

WITHIN = 60  # seconds, on a busy machine

# Metric, what the agent is told of it, address, type and value on the server's side.
REGISTERS = [
    ("small", "u16", 0, DataType.UINT16, 65500),
    ("signed", "i16", 1, DataType.INT16, -123),
    ("tenths", "i16 /10", 2, DataType.INT16, -215),
    ("large", "u32", 4, DataType.UINT32, 4_000_000_000),
    ("minus", "i32", 6, DataType.INT32, -70_000),
    ("volts", "f32", 8, DataType.FLOAT32, 230.2),
    ("counter", "u64", 10, DataType.UINT64, 2**63 + 1),
    ("drift", "i64", 14, DataType.INT64, -(2**40)),
    ("exact", "f64", 18, DataType.FLOAT64, 0.1),
    ("model", "text 4", 22, DataType.STRING, "AB-12 x"),
    # Beyond holes that the server refuses.
    ("far", "u16", 40, DataType.UINT16, 7),
    ("last", "u32", 65534, DataType.UINT32, 1),
]
EXPECTED = {metric: value for metric, _, _, _, value in REGISTERS} | {
    "tenths": -21.5,
    "pump": True,
    "door": False,
}


def device(unit):
    words = [SimData(address, values=value, datatype=kind) for _, _, address, kind, value in REGISTERS]
    coils = [SimData(0, values=[n == 5 for n in range(16)], datatype=DataType.BITS)]
    return SimDevice(unit, (coils, coils, words, words))


def configuration(ports):
    text = "name = 'peers'\n"
    for name, port in ports.items():
        text += f"[[modbus]]\nname = '{name}'\nport = '{port}'\nbaud = 19200\nevery = '200ms'\ntimeout = '500ms'\n"
        for unit in (1, 9):
            for table in ("holding", "input"):
                registers = [f"{metric} {table} {address} {kind}" for metric, kind, address, _, _ in REGISTERS]
                registers += ["pump coil 5", "door discrete 6"]
                text += f"[[modbus.devices]]\nunit = {unit}\nname = '{name}-{table}-{unit}'\n"
                text += f"registers = {json.dumps(registers)}\n"
    return text


async def read(agent, folder, ports):
    """Runs the agent until it has read everything, and returns what it said that was wrong."""
    missing = {(f"{name}-{table}-1", metric) for name in ports for table in ("holding", "input") for metric in EXPECTED}
    process = await asyncio.create_subprocess_exec(
        agent, "try", "--config", str(folder / "agent.toml"), stdout=asyncio.subprocess.PIPE
    )
    try:
        while missing:
            reading = json.loads(await process.stdout.readline())
            found, expected = reading["value"], EXPECTED[reading["metric"]]
            if found != expected or isinstance(found, bool) != isinstance(expected, bool):
                sys.exit(f"expected {expected!r}: {reading}")
            missing.discard((reading["device"], reading["metric"]))
    except asyncio.CancelledError:
        sys.exit(f"not read: {sorted(missing)}")
    finally:
        process.terminate()
        await process.wait()


async def main(agent, port, tty, server_tty):
    # What it refuses is part of the test, and it would tell of each refusal at length.
    logging.disable(logging.CRITICAL)
    port = int(port)
    servers = [
        ModbusTcpServer(device(1), address=("127.0.0.1", port)),
        ModbusTcpServer(device(1), address=("127.0.0.1", port + 1), framer=FramerType.RTU, ignore_missing_devices=True),
        ModbusSerialServer(device(1), port=server_tty, baudrate=19200, ignore_missing_devices=True),
    ]
    for server in servers:
        await server.serve_forever(background=True)
    ports = {"tcp": f"tcp://127.0.0.1:{port}", "rtu-tcp": f"rtu+tcp://127.0.0.1:{port + 1}", "rtu": tty}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "agent.toml").write_text(configuration(ports))
        await asyncio.wait_for(read(agent, folder, ports), WITHIN)
    print(f"{len(EXPECTED)} values over each of {', '.join(ports)}, holding and input registers: as pymodbus has them")
    for server in servers:
        await server.shutdown()


asyncio.run(main(*sys.argv[1:]))

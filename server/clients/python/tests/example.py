"""A program that reads one message and leaves: example.py URL TOKEN"""

import asyncio
import sys

from valtronics import connect


async def main(url, token):
    async with connect(url, token) as client:
        client.subscribe("alerts", on_message=print)
        async for message in client.subscribe("system"):
            print(message["metrics"])
            break


asyncio.run(main(*sys.argv[1:]))

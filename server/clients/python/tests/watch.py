"""What tests wait for: facts, with a deadline."""

import asyncio
import functools

from valtronics import Client

DEADLINE_SECONDS = 20


def asyncio_test(function):
    """Runs a test that is a coroutine."""

    @functools.wraps(function)
    def run(**arguments):
        asyncio.run(asyncio.wait_for(function(**arguments), 3 * DEADLINE_SECONDS))

    return run


async def until(what, fact):
    """Returns when `fact()` is true."""
    end = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while not fact():
        assert asyncio.get_running_loop().time() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


class Watched(Client):
    """A client that comes back fast, and notes what happens to it."""

    def __init__(self, url, token="fake", **options):
        self.statuses, self.errors, self.responses, self.lags = [], [], [], []
        super().__init__(
            url,
            token,
            on_status=lambda status, error: self.statuses.append((status, error)),
            on_error=self.errors.append,
            on_subscribed=lambda subscription, response: self.responses.append(response),
            on_lagged=self.lags.append,
            **{"backoff": (0.02, 0.2), **options},
        )

    def codes(self):
        return [error.code for error in self.errors]

    def record(self, channel, **options):
        """Subscribes, and notes every message."""
        messages = []
        return self.subscribe(channel, options, messages.append), messages


def seqs(messages):
    return [message["seq"] for message in messages if not message.get("snapshot")]

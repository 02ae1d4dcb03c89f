"""The client and the real server."""

import asyncio
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from server import HERE, Server, example
from valtronics import ValtronicsError, connect
from watch import Watched, asyncio_test, seqs, until


@asyncio_test
async def test_what_is_asked_before_the_connection_opens_is_done():
    async with Server() as server:
        agent = await server.agent()
        await agent.reading("boiler", "temperature", 20.5)
        async with Watched(server.url, server.token("d")) as client:
            boiler, messages = client.record("telemetry", device_id=1)
            system, metrics = client.record("system", filters={"metrics": ["cpu_usage"], "frequency": "1s"})
            assert client.status == "waiting"
            assert (await client.ping())["server_time"]
            assert (await boiler.response)["filters"] == {"device_id": [1]}
            await until("the snapshot", lambda: len(messages) == 1)
            assert messages[0]["telemetry"]["temperature"]["value"] == 20.5
            await agent.reading("boiler", "temperature", 21)
            await until("the change", lambda: len(messages) == 2)
            await until("the system", lambda: metrics)
            assert list(metrics[0]["metrics"]) == ["cpu_usage"]


@asyncio_test
async def test_a_refusal_says_why_to_the_response_the_reader_and_the_client():
    async with Server() as server:
        async with Watched(server.url, server.token("d", "--scope", "telemetry:read")) as client:
            alerts = client.subscribe("alerts")
            with pytest.raises(ValtronicsError, match="alerts:read") as refused:
                await alerts.response
            assert refused.value.code == "forbidden"
            with pytest.raises(ValtronicsError, match="alerts:read"):
                async for _ in alerts:
                    pass
            for wrong in ({"nonsense": 1}, {"device_id": range(1, 30_001)}):
                with pytest.raises(ValtronicsError):
                    await client.subscribe("telemetry", wrong).response
            await client.ping()
            assert client.codes() == ["forbidden", "invalid_filter", "message_too_large"]
            assert client.status == "open"


@asyncio_test
async def test_a_server_that_was_killed_is_resumed_without_a_gap_or_a_repeat():
    async with Server() as server:
        agent = await server.agent()
        for device in "ab":
            await agent.reading(device, "temperature", 20)
        token, gate = server.token("d"), asyncio.Event()
        gate.set()

        async def let_in(_):
            await gate.wait()
            return token

        async with Watched(server.url, let_in) as client:
            devices, changes = client.record("devices", snapshot=False)
            critical, alerts = client.record("alerts", severity="critical", snapshot=False)
            first = (await devices.response)["seq"]
            await critical.response
            for done in (0, 4, 8):
                await agent.status("a", "warning")
                await agent.status("a", "online")
                await agent.reading("b", "temperature", 95)
                await agent.reading("b", "temperature", 20)
                await until("what is live", lambda: len(changes) == len(alerts) == done + 2)
                gate.clear()
                await server.kill()
                await until("the loss", lambda: client.status != "open")
                await server.run()
                agent = await server.agent()
                await agent.status("b", "warning")
                await agent.status("b", "online")
                await agent.reading("a", "temperature", 95)
                await agent.reading("a", "temperature", 20)
                gate.set()
                await until("what was missed", lambda: len(changes) == len(alerts) == done + 4)
        assert seqs(changes) == list(range(first + 1, first + 13))
        assert [alert["type"] for alert in alerts] == ["alert", "alert_update"] * 6


@asyncio_test
async def test_a_server_that_lost_its_data_sends_the_present_state_instead():
    async with Server() as server:
        agent = await server.agent()
        await agent.status("a", "warning")
        async with Watched(server.url, server.token("d")) as client:
            devices, changes = client.record("devices")
            await until("the snapshot", lambda: len(changes) == 1)
            await agent.status("a", "online")
            await until("the change", lambda: len(changes) == 2)
            await server.kill()
            server.lose_data()
            await server.run()
            await (await server.agent()).status("other", "warning")
            await until("a new snapshot", lambda: len(changes) == 3)
            assert [response.get("resumed") for response in client.responses] == [None, False]
            assert devices.log == client.responses[1]["log"]


@asyncio_test
async def test_a_snapshot_that_is_over_is_not_asked_for_again():
    async with Server() as server:
        await (await server.agent()).status("a", "warning")
        async with Watched(server.url, server.token("d")) as client:
            devices, changes = client.record("devices")
            await devices.response
            await until("a quiet moment", lambda: not devices.unsettled)
            await server.kill()
            await server.run()
            await until("the second connection", lambda: len(client.responses) == 2)
            assert client.responses[1]["resumed"] is True
            assert len(changes) == 1


@asyncio_test
async def test_a_token_is_renewed_while_the_connection_lives():
    async with Server() as server:
        reasons = []

        def token(reason):
            reasons.append(reason)
            return server.token("d", "--ttl", "5s" if reason == "connect" else "1h")

        async with Watched(server.url, token) as client:
            soon = datetime.now(timezone.utc) + timedelta(minutes=1)

            def renewed():
                return client.expires_at and datetime.fromisoformat(client.expires_at[:19] + "+00:00") > soon

            await until("the second token", renewed)
            assert reasons == ["connect", "expiring"]
            assert [status for status, _ in client.statuses] == ["connecting", "open"]


@asyncio_test
async def test_a_refused_token_is_asked_for_again_and_never_sent_twice():
    async with Server() as server:
        reasons, tokens = [], ["a.b.c", "a.b.c", server.token("d")]

        async def token(reason):
            reasons.append(reason)
            return tokens[len(reasons) - 1]

        async with Watched(server.url, token) as client:
            await until("a good token", lambda: client.status == "open")
            assert reasons == ["connect", "refused", "refused"]
            assert client.codes() == ["invalid_token"]
        async with Watched(server.url, "a.b.c") as client:
            await until("the end", lambda: client.status == "closed")
            await asyncio.sleep(0)
            assert client.statuses[-1][1].code == "invalid_token"


@asyncio_test
async def test_hundreds_of_requests_at_once_stay_below_the_limits():
    async with Server() as server, Watched(server.url, server.token("d")) as client:
        some = [client.subscribe("telemetry", device_id=number) for number in range(1, 261)]
        await asyncio.gather(*(one.response for one in some))
        await asyncio.gather(*(one.unsubscribe() for one in some[:40]))
        assert client.errors == []


@asyncio_test
async def test_a_newer_subscription_to_a_device_takes_the_place_of_the_older():
    async with Server() as server:
        agent = await server.agent()
        for device in "abc":
            await agent.reading(device, "temperature", 1)
        async with Watched(server.url, server.token("d")) as client:
            everything, all_of = client.record("telemetry", snapshot=False)
            pair, two_of = client.record("telemetry", device_id=[1, 2], snapshot=False)
            single, one_of = client.record("telemetry", device_id=2, snapshot=False)
            await single.response
            for device in "abc":
                await agent.reading(device, "temperature", 2)
            await until("three messages", lambda: len(all_of) == len(two_of) == len(one_of) == 1)
            assert [some[0]["device_id"] for some in (all_of, two_of, one_of)] == [3, 1, 2]

            # Told to the server as the whole channel, and yet the others go on.
            await everything.unsubscribe()
            await client.ping()
            for device in "cab":
                await agent.reading(device, "temperature", 3)
            await until("two messages", lambda: len(two_of) == len(one_of) == 2)
            assert len(all_of) == 1

            last = client.subscribe("telemetry", device_id=[1, 2])
            with pytest.raises(ValtronicsError, match="newer"):
                async for _ in pair:
                    pass
            await last.response


@asyncio_test
async def test_a_server_that_stands_still_is_noticed_and_found_again():
    async with Server() as server:
        async with Watched(server.url, server.token("d"), heartbeat=0.1, timeout=0.4) as client:
            await client.subscribe("system", frequency="24h").response
            server.process.send_signal(signal.SIGSTOP)
            await until("the loss", lambda: client.status != "open")
            await asyncio.sleep(0)
            error = next(error for status, error in client.statuses if status == "waiting")
            assert error.code == "timeout"
            server.process.send_signal(signal.SIGCONT)
            await until("the return", lambda: client.status == "open")


@asyncio_test
async def test_clients_of_one_url_and_token_share_a_connection():
    async with Server() as server:
        token = server.token("d")
        one, two = connect(server.url, token), connect(server.url, token)
        other = connect(server.url, server.token("e"))
        await one.close()
        await two.ping()
        await two.close()
        await other.close()
        assert one.status == "closed"
        async with connect(server.url, token) as again:
            await again.ping()


@asyncio_test
async def test_a_process_that_closes_its_client_ends():
    async with Server() as server:
        assert "cpu_usage" in await example(server.url, server.token("d"))


@asyncio_test
async def test_the_example_in_the_readme_works():
    async with Server() as server:
        agent = await server.agent()
        await agent.reading("boiler", "temp", 21.5)
        await agent.reading("boiler", "temperature", 95)
        readme = (HERE.parent / "README.md").read_text()
        code = readme.split("```python\n")[1].split("```")[0]
        code = code.replace("ws://localhost:8000/ws", server.url).replace("your-token", server.token("d"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-B", "-u", "-c", code, stdout=subprocess.PIPE
        )
        try:
            lines = [await process.stdout.readline() for _ in range(2)]
        finally:
            process.kill()
            await process.wait()
        assert any(b"21.5" in line for line in lines)
        assert b"alert hot active\n" in lines

"""The client and a server that does what a real one does only when something is wrong."""

import asyncio

import pytest
from fake import Fake
from server import example
from valtronics import Client, ValtronicsError, connect
from valtronics.ending import Backoff, Ending
from watch import Watched, asyncio_test, seqs, until


def alert(seq, **more):
    return {"type": "alert", "channel": "alerts", "device_id": 1, "seq": seq, **more}


def closing(*codes):
    """Closes the first connections with these codes, and serves the next."""

    def script(connection, number):
        if number <= len(codes):
            connection.answer = lambda _: connection.close(codes[number - 1], "why not")

    return script


@pytest.mark.parametrize(
    ("code", "error"),
    [(4403, "forbidden"), (1002, "protocol_error"), (1007, "protocol_error"), (1009, "protocol_error")],
)
@asyncio_test
async def test_some_close_codes_are_the_end(code, error):
    async with Fake(closing(code)) as fake, Watched(fake.url) as client:
        alerts = client.subscribe("alerts")
        with pytest.raises(ValtronicsError, match="why not") as ended:
            async for _ in alerts:
                pass
        assert (ended.value.code, ended.value.close_code) == (error, code)
        with pytest.raises(ValtronicsError):
            await client.ping()
        assert client.status == "closed"
        await asyncio.sleep(0.3)
        assert len(fake.connects) == 1


@asyncio_test
async def test_after_any_other_close_code_it_comes_back():
    codes = [1000, 1001, 1011, 4408, 4413]
    async with Fake(closing(*codes)) as fake, Watched(fake.url) as client:
        await until("the last connection", lambda: client.status == "open")
        await asyncio.sleep(0)
        waits = [error for status, error in client.statuses if status == "waiting"]
        assert [error.close_code for error in waits] == codes


@asyncio_test
async def test_it_comes_back_when_the_server_said_not_before():
    def script(connection, number):
        async def close_later(_):
            asyncio.get_running_loop().call_later(
                0.02, lambda: tasks.append(asyncio.ensure_future(connection.close(4429)))
            )
            response = {"type": "auth_response", "success": False, "error": "connection_limit"}
            return {**response, "message": "close some", "retry_after": 1}

        if number == 1:
            connection.answer = lambda _: connection.close(4429, "too many; retry_after=1")
        if number == 2:
            connection.answer = close_later

    tasks = []
    async with Fake(script) as fake, Watched(fake.url) as client:
        await until("the third connection", lambda: client.status == "open")
        first, second, third = fake.connects
        assert second - first >= 0.99 and third - second >= 0.99
        assert client.codes() == ["connection_limit"]


@asyncio_test
async def test_it_tries_for_ever_more_and_more_slowly():
    async with Fake(lambda connection, _: connection.close(1011)) as fake:
        async with Watched(fake.url, backoff=(0.01, 0.1)) as client:
            delays, delay_of = [], client._backoff.delay
            client._backoff.delay = lambda ending: delays.append(delay_of(ending)) or delays[-1]
            await until("ten connections", lambda: len(delays) >= 10)
            for number, delay in enumerate(delays):
                most = min(0.1, 0.01 * 2**number)
                assert most / 2 <= delay <= most


def test_a_server_that_goes_away_is_come_back_to_at_any_moment_of_some_seconds():
    delays = [Backoff(1, 30).delay(Ending.closed(1001, "", 0)) for _ in range(1000)]
    assert min(delays) < 0.5 and max(delays) > 9 and max(delays) <= 10


@asyncio_test
async def test_when_the_token_has_expired_it_comes_back_with_a_new_one_only():
    reasons = []
    async with Fake(closing(4401)) as fake:
        async with Watched(
            fake.url, lambda reason: reasons.append(reason) or str(len(reasons) // 3)
        ) as client:
            await until("a connection", lambda: client.status == "open")
            assert reasons == ["connect", "refused", "refused"]
            assert [frame["token"] for frame in fake.frames] == ["0", "1"]
    async with Fake(closing(4401)) as fake, Watched(fake.url, "token") as client:
        await until("the end", lambda: client.status == "closed")


@asyncio_test
async def test_requests_of_one_moment_share_a_batch_of_at_most_fifty():
    async with Fake() as fake, Watched(fake.url) as client:
        begin = asyncio.get_running_loop().time()
        some = [client.subscribe("telemetry", device_id=number) for number in range(1, 121)]
        await asyncio.gather(*(one.response for one in some))
        # The server takes a hundred a second.
        assert asyncio.get_running_loop().time() - begin >= 1
        assert [len(frame.get("messages", "")) for frame in fake.frames] == [0, 50, 50, 20]
        assert fake.frames[0]["type"] == "auth"
        await client.ping()
        assert fake.frames[-1]["type"] == "ping"


@asyncio_test
async def test_what_was_rate_limited_is_sent_again():
    refused = []

    def script(connection, _):
        def answer(request):
            if request["type"] != "subscribe" or refused:
                return connection.usual(request)
            refused.append(request)
            no = {"type": "subscribe_response", "success": False, "error": "rate_limited"}
            return {**no, "message": "slower", "id": request["id"]}

        connection.answer = answer

    async with Fake(script) as fake, Watched(fake.url) as client:
        await client.subscribe("alerts").response
        assert [frame["type"] for frame in fake.frames] == ["auth", "subscribe", "subscribe"]
        assert client.errors == []


@asyncio_test
async def test_batches_are_unpacked_repeats_left_out_snapshots_never():
    async with Fake() as fake, Watched(fake.url) as client:
        subscription, messages = client.record("alerts")
        await subscription.response
        shown = [alert(7, snapshot=True), alert(12, snapshot=True)]
        live = [alert(11), alert(12), alert(13), alert(13), alert(9)]
        await fake.connection.send({"type": "batch", "messages": shown + live})
        await fake.connection.send({"type": "lagged", "channel": "telemetry", "dropped": 3})
        await fake.connection.send({"type": "unheard_of"})
        await until("the rest", lambda: client.lags)
        assert seqs(messages) == [11, 13] and len(messages) == 4
        assert subscription.since == 13


@asyncio_test
async def test_after_a_snapshot_that_broke_off_it_asks_for_another():
    def script(connection, number):
        async def answer(request):
            if request["type"] != "subscribe":
                return connection.usual(request)
            await connection.send(connection.usual(request))
            await connection.send(alert(5, snapshot=True))
            if number == 2:
                await connection.send(alert(11))
            await connection.close(1011)

        if number <= 2:
            connection.answer = answer

    def asked():
        return [frame for frame in fake.frames if frame["type"] == "subscribe"]

    async with Fake(script) as fake, Watched(fake.url) as client:
        client.record("alerts")
        await until("three requests", lambda: len(asked()) == 3)
        assert [request.get("since") for request in asked()] == [None, None, 11]
        assert asked()[2]["log"] == "l"


@asyncio_test
async def test_a_subscription_that_nobody_reads_ends_and_others_go_on():
    async with Fake() as fake, Watched(fake.url) as client:
        unread = client.subscribe("alerts")
        await unread.response
        for seq in range(11, 10_012):
            await fake.connection.send(alert(seq))
        await until("the end", lambda: unread.ended)
        read = 0
        with pytest.raises(ValtronicsError, match="not read"):
            async for _ in unread:
                read += 1
        assert read == 10_001
        await client.ping()


@asyncio_test
async def test_rights_that_a_new_token_takes_away_end_their_subscriptions():
    async with Fake() as fake, Watched(fake.url) as client:
        everything, one = client.subscribe("alerts"), client.subscribe("alerts", device_id=3)
        await everything.response
        await one.response
        gone = {"type": "subscribe_response", "success": False, "error": "forbidden", "channel": "alerts"}
        await fake.connection.send({**gone, "message": "it has ended", "filters": {"device_id": [3]}})
        await until("the end", lambda: one.ended)
        assert not everything.ended
        await fake.connection.send({**gone, "message": "it has ended", "filters": {}})
        await until("the end", lambda: everything.ended)


@asyncio_test
async def test_a_token_that_cannot_be_had_is_asked_for_again():
    asked = []

    async def token(reason):
        asked.append(reason)
        if len(asked) < 3:
            raise OSError("no login")
        return "token"

    async with Fake() as fake, Watched(fake.url, token) as client:
        await until("a connection", lambda: client.status == "open")
        assert asked == ["connect"] * 3


@asyncio_test
async def test_tokens_that_live_but_a_moment_are_not_renewed_at_every_moment():
    def script(connection, _):
        async def answer(request):
            await connection.send(connection.usual(request))
            if request["type"] == "auth":
                await connection.send({"type": "auth_expiring", "expires_at": "2024-01-01T00:00:00Z"})

        connection.answer = answer

    asked = []
    async with (
        Fake(script) as fake,
        Watched(fake.url, lambda _: asked.append(1) or str(len(asked))) as client,
    ):
        await until("the first renewal", lambda: len(fake.frames) == 2)
        await asyncio.sleep(0.3)
        await client.ping()
        assert len(asked) == 2
        assert client.errors == []


@asyncio_test
async def test_what_is_no_message_ends_the_connection_not_the_client():
    async def script(connection, number):
        if number == 1:
            await connection.send({"type": "batch"})

    async with Fake(script) as fake, Watched(fake.url) as client:
        await until("a connection", lambda: client.status == "open")
        assert len(fake.connects) == 2


@asyncio_test
async def test_a_handshake_that_is_refused_is_tried_again_when_the_server_said():
    begun = []

    def refuse(connection, request):
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 1:
            response = connection.respond(503, "full")
            response.headers["Retry-After"] = "1"
            return response

    async with Fake(process_request=refuse) as fake, Watched(fake.url) as client:
        await until("a connection", lambda: client.status == "open")
        assert begun[1] - begun[0] >= 0.99


@asyncio_test
async def test_an_error_report_goes_to_the_server():
    async with Fake() as fake, Watched(fake.url) as client:
        client.report_error(ValueError("it broke"), {"at": 1})
        await client.ping()
        report = {"type": "error_report", "error": "it broke", "data": {"at": 1}}
        assert fake.frames[-1]["messages"][0] == report


@asyncio_test
async def test_nothing_is_left_when_the_client_has_closed():
    async with Fake() as fake:
        before = asyncio.all_tasks()
        client = Watched(fake.url, lambda _: "token")
        subscription = client.subscribe("alerts")
        await subscription.response
        # A beat is just beginning; closing must not wait for its end.
        await asyncio.wait_for(client.close(), 5)
        async for _ in subscription:
            pass
        left = [task.get_coro().__qualname__ for task in asyncio.all_tasks() - before]
        assert [name for name in left if not name.startswith("Server")] == []
        assert client.subscribe("alerts").ended


@asyncio_test
async def test_a_process_ends_although_the_server_does_not_say_goodbye():
    def script(connection, _):
        async def answer(request):
            await connection.send(connection.usual(request))
            if request.get("channel") == "system":
                await connection.send({"type": "system_status_update", "channel": "system", "metrics": 1})
                connection.socket.transport.pause_reading()

        connection.answer = answer

    async with Fake(script) as fake:
        assert await example(fake.url, "token") == "1\n"


@asyncio_test
async def test_who_closes_a_shared_client_twice_takes_no_share_of_another():
    async with Fake() as fake:
        one, two, other = connect(fake.url, "fake"), connect(fake.url, "fake"), connect(fake.url, "other")
        await asyncio.gather(one.ping(), two.ping(), other.ping())
        assert len(fake.connects) == 2
        assert isinstance(one, Client)
        await one.close()
        await one.close()
        assert two.status == "open"
        await two.ping()
        await two.close()
        assert (two.status, other.status) == ("closed", "open")
        async with connect(fake.url, "fake") as again:
            await two.close()
            await again.ping()
            assert len(fake.connects) == 3
        await other.close()

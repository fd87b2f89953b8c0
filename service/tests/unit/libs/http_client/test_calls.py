"""Calls over real sockets."""

import asyncio
import contextlib
import gc
import gzip
import socket
import zlib

import pytest

from event_service.libs.http_client import (
    Broken,
    ClientClosed,
    ConnectFailed,
    HttpClient,
    HttpClientError,
    InvalidRequest,
    Progress,
    Reply,
    TimedOut,
    TooLarge,
    Undecodable,
    parse_base_url,
)
from event_service.libs.http_client.connection import Connection

from .wires import answer_ok, client_of, fetch, peer, until

pytestmark = pytest.mark.anyio


async def hang(call):
    await call.left()


async def test_a_call_sends_its_arguments_and_returns_the_reply():
    async def script(call):
        await call.answer(b"hello", fields=["X-Found: yes"])

    async with (
        peer(script) as server,
        client_of(f"{server.url}/base/", headers={"user-agent": "test"}) as client,
    ):
        reply = await client.send(
            "POST", "/a?b=%20", headers={"x-key": "é 1"}, body=b"\0body", time_limit=5
        )
        assert (reply.status, await reply.read()) == (200, b"hello")
    call = server.calls[0]
    assert call.line == "POST /base/a?b=%20 HTTP/1.1"
    assert call.body == b"\0body"
    assert call.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "user-agent": "test",
        "x-key": "é 1",
        "content-length": "5",
    }
    assert reply.header(b"x-found") == "yes"


async def test_a_get_has_no_length_and_an_empty_post_has_one():
    async with peer(answer_ok) as server, client_of(server.url) as client:
        await fetch(client)
        await fetch(client, method="POST")
    assert "content-length" not in server.calls[0].headers
    assert server.calls[1].headers["content-length"] == "0"


async def test_one_connection_serves_calls_one_after_the_other():
    async with peer(answer_ok) as server, client_of(server.url) as client:
        replies = []
        for _ in range(10):
            reply = await client.send("GET", "/", time_limit=5)
            await reply.read()
            replies.append(reply)
        assert client.connections == 1
    assert server.connections == 1
    first, *later = (reply.timings for reply in replies)
    assert first.connect is not None
    assert first.tls is None
    assert 0 <= first.first_byte <= first.whole < 5
    assert all(timings.connect is None for timings in later)


async def test_calls_at_the_same_time_have_each_their_connection():
    async def script(call):
        await call.answer(call.target.encode())

    async with peer(script) as server, client_of(server.url, connections=50) as client:
        for _ in range(3):
            found = await asyncio.gather(*(fetch(client, f"/{n}") for n in range(50)))
            assert found == [(200, b"/%d" % n) for n in range(50)]
    assert server.connections == 50


async def test_a_cancelled_call_ends_at_the_peer_at_once():
    gone = asyncio.Event()

    async def script(call):
        await call.left()
        gone.set()

    async with peer(script) as server, client_of(server.url) as client:
        call = asyncio.create_task(fetch(client))
        await until(lambda: server.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.connections == 0
        await gone.wait()


async def test_a_call_cancelled_in_the_middle_of_its_body_ends_at_the_peer_at_once():
    async def script(call):
        await call.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await call.left()

    async with peer(script) as server, client_of(server.url) as client:
        reply = await client.send("GET", "/", time_limit=5)
        reading = asyncio.create_task(reply.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert client.connections == 0
        await until(lambda: not server.open)


async def test_a_call_that_takes_too_long_ends_at_the_peer_and_says_what_it_waited_for():
    async with peer(hang) as server, client_of(server.url) as client:
        with pytest.raises(TimedOut, match="no byte of a reply") as caught:
            await fetch(client, time_limit=0.2)
        assert caught.value.progress is Progress.SENT
        assert caught.value.timings.connect is not None
        assert caught.value.timings.first_byte is None
        await until(lambda: not server.open)
        assert client.connections == 0


async def test_the_time_limit_holds_for_a_reply_nobody_takes():
    async def script(call):
        await call.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await call.left()

    async with peer(script) as server, client_of(server.url) as client:
        reply = await client.send("GET", "/", time_limit=0.02)
        await until(lambda: not client.connections)
        with pytest.raises(TimedOut, match="the body"):
            await reply.read()
        await until(lambda: not server.open)


async def test_each_call_has_its_own_time_limit():
    async with peer(hang) as server, client_of(server.url) as client:
        limits = [0.25, 0.05, 0.15, 0.05]
        ended = []

        async def call(limit):
            with pytest.raises(TimedOut):
                await fetch(client, time_limit=limit)
            ended.append(limit)

        await asyncio.gather(*map(call, limits))
    assert ended == sorted(limits)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_hung_up_while_idle_costs_no_call(method):
    """As servers do that keep idle connections for a second: at the moment of the next call."""

    async def script(call):
        if call.number == 1:
            await call.answer(call.target.encode())
        else:
            call.hang_up()

    async with peer(script) as server, client_of(server.url) as client:
        for n in range(20):
            found = await fetch(
                client, f"/{n}", method=method, headers={"idempotency-key": str(n)}, body=b"x"
            )
            assert found == (200, b"/%d" % n)
    assert server.connections == 20
    # The calls that met the end, and those that were sent again, in the same words.
    assert [call.target for call in server.calls].count("/5") == 2
    again = [call for call in server.calls if call.target == "/5"]
    assert again[0].headers == again[1].headers
    assert again[0].body == again[1].body == b"x"


async def test_a_408_on_a_connection_that_was_idle_costs_no_call():
    async def script(call):
        if call.number == 1:
            await call.answer()
        else:
            await call.answer(status="408 Request Timeout", fields=["Connection: close"])
            call.hang_up()

    async with peer(script) as server, client_of(server.url) as client:
        for _ in range(5):
            assert await fetch(client) == (200, b"{}")


async def test_a_408_that_keeps_the_connection_open_is_the_reply():
    async def script(call):
        await call.answer(status="200 OK" if call.number == 1 else "408 Request Timeout")

    async with peer(script) as server, client_of(server.url) as client:
        await fetch(client)
        answer = await fetch(
            client, "/add", method="POST", headers={"idempotency-key": "1"}, body=b"x"
        )

    assert answer[0] == 408
    assert [call.target for call in server.calls].count("/add") == 1


async def test_a_408_on_a_new_connection_is_the_reply():
    async def script(call):
        await call.answer(status="408 Request Timeout")

    async with peer(script) as server, client_of(server.url) as client:
        assert (await fetch(client))[0] == 408
    assert len(server.calls) == 1


async def test_a_post_without_a_key_is_not_sent_again():
    async def script(call):
        if call.number == 1:
            await call.answer()
        else:
            call.hang_up()

    async with peer(script) as server, client_of(server.url) as client:
        await fetch(client)
        with pytest.raises(Broken) as caught:
            await fetch(client, method="POST")
        assert caught.value.progress is Progress.SENT
    assert len(server.calls) == 2


async def test_a_call_is_sent_again_once_at_most():
    async def script(call):
        if len(server.calls) == 1:
            await call.answer()
        else:
            call.hang_up()

    async with peer(script) as server, client_of(server.url) as client:
        await fetch(client)
        with pytest.raises(Broken):
            await fetch(client)
    assert len(server.calls) == 3


async def test_a_call_that_got_a_byte_of_its_reply_is_not_sent_again():
    async def script(call):
        if call.number == 1:
            await call.answer()
        else:
            await call.say(b"H")
            call.hang_up()

    async with peer(script) as server, client_of(server.url) as client:
        await fetch(client)
        with pytest.raises(Broken) as caught:
            await fetch(client)
        assert caught.value.progress is Progress.REPLYING
    assert len(server.calls) == 2


async def test_a_call_on_a_new_connection_is_not_sent_again():
    async def script(call):
        call.reset()

    async with peer(script) as server, client_of(server.url) as client:
        with pytest.raises(Broken):
            await fetch(client)
    assert len(server.calls) == 1


async def test_both_tries_share_one_time_limit():
    async def script(call):
        if len(server.calls) == 1:
            await call.answer()
        elif len(server.calls) == 2:
            await asyncio.sleep(0.5)
            call.hang_up()
        else:
            await call.left()

    async with peer(script) as server, client_of(server.url) as client:
        await fetch(client)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimedOut) as caught:
            await fetch(client, time_limit=0.9)
        assert loop.time() - began < 1.3  # 1.4 with a limit for each
        assert caught.value.progress is Progress.SENT
    assert len(server.calls) == 3


async def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with client_of(url) as client:
            with pytest.raises(ConnectFailed, match="refused") as caught:
                await fetch(client)
            assert caught.value.progress is Progress.NEVER_SENT
            assert client.connections == 0


async def test_a_name_that_nobody_has():
    async with client_of("http://name.invalid") as client:
        with pytest.raises(ConnectFailed, match="looked up") as caught:
            await fetch(client)
        assert caught.value.progress is Progress.NEVER_SENT


async def test_an_unreachable_address_is_not_a_slow_reply():
    with socket.socket() as full:
        # A listener whose queue is full drops what knocks.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        blockers = [socket.socket() for _ in range(4)]
        for blocker in blockers:
            blocker.setblocking(False)
            blocker.connect_ex(full.getsockname())
        async with client_of(f"http://127.0.0.1:{full.getsockname()[1]}") as client:
            with pytest.raises(TimedOut, match="no connection in time") as caught:
                await fetch(client, time_limit=0.05)
            assert caught.value.progress is Progress.NEVER_SENT
            assert client.connections == 0
        for blocker in blockers:
            blocker.close()


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/a b", {}),
        ("GET", "/a\r\nX: y", {}),
        ("GET", "/a\nb", {}),
        ("GET", "/é", {}),
        ("GET", "/a#b", {}),
        ("GET", "a", {}),
        ("GET", "", {}),
        ("GET", "/\0", {}),
        ("GET", "/\udc80", {}),
        ("GET X", "/", {}),
        ("get", "/", {}),
        ("HEAD", "/", {}),
        ("CONNECT", "/", {}),
        ("GET", "/", {"x": "a\r\nY: b"}),
        ("GET", "/", {"x": "a\nb"}),
        ("GET", "/", {"x": "a\rb"}),
        ("GET", "/", {"x": "a\0"}),
        ("GET", "/", {"x": "\u20ac"}),
        ("GET", "/", {"x": "\udc80"}),
        ("GET", "/", {"x y": "a"}),
        ("GET", "/", {"x:": "a"}),
        ("GET", "/", {"": "a"}),
        ("GET", "/", {"x\r\ny": "a"}),
        ("GET", "/", {"é": "a"}),
        ("GET", "/", {"content-length": "1"}),
        ("GET", "/", {"Transfer-Encoding": "chunked"}),
        ("GET", "/", {"host": "b"}),
    ],
)
async def test_an_invalid_request_is_refused_before_it_is_sent(method, target, headers):
    async with peer(answer_ok) as server, client_of(server.url) as client:
        with pytest.raises(InvalidRequest) as caught:
            await fetch(client, target, method=method, headers=headers)
        assert caught.value.progress is Progress.NEVER_SENT
    assert not server.connections


@pytest.mark.parametrize("value", ["a\tb", "é", "\x80\xff", " a ", ""])
async def test_every_allowed_header_value_is_sent(value):
    async with peer(answer_ok) as server, client_of(server.url) as client:
        assert (await fetch(client, headers={"x-value": value}))[0] == 200
    assert server.calls[0].headers["x-value"] == value


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello " * 1000, mtime=0)),
        ("x-gzip", gzip.compress(b"hello " * 1000, mtime=0)),
        ("GZIP", gzip.compress(b"hello " * 500, mtime=0) + gzip.compress(b"hello " * 500, mtime=0)),
        ("deflate", zlib.compress(b"hello " * 1000)),
        ("deflate", zlib.compress(b"hello " * 1000, wbits=-15)),
        ("identity", b"hello " * 1000),
        ("", b"hello " * 1000),
    ],
)
async def test_a_packed_body_is_read_although_nobody_asked_for_one(encoding, body):
    async def script(call):
        await call.answer(body, fields=[f"Content-Encoding: {encoding}"])

    async with peer(script) as server, client_of(server.url) as client:
        assert await fetch(client) == (200, b"hello " * 1000)
        assert await fetch(client) == (200, b"hello " * 1000)


async def test_an_empty_packed_body_is_empty():
    async def script(call):
        await call.answer(b"", fields=["Content-Encoding: gzip"])

    async with peer(script) as server, client_of(server.url) as client:
        assert await fetch(client) == (200, b"")


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("gzip", gzip.compress(bytes(100_001), mtime=0), TooLarge),
        ("gzip", gzip.compress(bytes(60_000), mtime=0) * 2, TooLarge),
        ("deflate", zlib.compress(bytes(100_001)), TooLarge),
        ("gzip", b"nonsense", Undecodable),
        ("deflate", b"nonsense", Undecodable),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-1], Undecodable),
        ("gzip", gzip.compress(b"hello", mtime=0) + b"x", Undecodable),
        ("gzip", gzip.compress(b"", mtime=0) * 1000, Undecodable),
        ("deflate", zlib.compress(b"hello") + b"x", Undecodable),
        ("br", b"hello", Undecodable),
        ("gzip, gzip", gzip.compress(gzip.compress(b"hello", mtime=0), mtime=0), Undecodable),
    ],
)
async def test_a_packed_body_that_is_broken_or_too_long_is_an_error(encoding, body, error):
    async def script(call):
        await call.answer(body, fields=[f"Content-Encoding: {encoding}"])

    async with peer(script) as server, client_of(server.url, max_body=100_000) as client:
        with pytest.raises(error) as caught:
            await fetch(client)
        assert caught.value.progress is Progress.REPLYING
        assert type(caught.value) is error


async def test_a_peer_stops_sending_while_nobody_takes_the_body():
    sent = 0

    async def script(call):
        nonlocal sent
        await call.say(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(1000):
            await call.say(bytes(64_000))
            sent += 64_000

    async with (
        peer(script) as server,
        client_of(server.url, max_body=64_000_000) as client,
    ):
        reply = await client.send("GET", "/", time_limit=30)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 32_000_000  # what sockets hold, no more
        assert reply.size < 1_000_000
        assert len(await reply.read()) == 64_000_000


async def test_a_client_that_is_closed_says_so():
    async with peer(hang) as server:
        client = HttpClient(parse_base_url(server.url), connections=1)
        under_way = asyncio.create_task(fetch(client))
        await until(lambda: server.calls)
        waits = asyncio.create_task(fetch(client))
        await until(lambda: client.waiting)
        await client.close()
        with pytest.raises(Broken, match="closed"):
            await under_way
        with pytest.raises(ClientClosed):
            await waits
        with pytest.raises(ClientClosed):
            await fetch(client)
        assert client.connections == 0
        await until(lambda: not server.open)


async def test_calls_that_fail_leave_nothing_to_the_garbage_collector():
    async def script(call):
        if call.target == "/kept":
            await call.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        if call.target == "/late":
            await call.left()
        if call.target == "/cut":
            await call.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        call.hang_up()

    async with peer(script) as server, client_of(server.url) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                with contextlib.suppress(HttpClientError):
                    await fetch(client, "/")
                # Connected by then: a loop that was connecting leaves rubbish of its own.
                await fetch(client, "/kept")
                with contextlib.suppress(HttpClientError):
                    await fetch(client, "/late", time_limit=0.01)
                reply = await client.send("GET", "/cut", time_limit=5)
                await until(lambda: not client.connections)
                with contextlib.suppress(HttpClientError):
                    await reply.read()
                arrived = len(server.calls)
                call = asyncio.create_task(fetch(client, "/late"))
                await until(lambda arrived=arrived: len(server.calls) > arrived)
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await call
            del call, reply
            await until(lambda: not server.open)
            # A transport lets go of its connection in a later turn of the loop.
            await until(
                lambda: not any(isinstance(each, (Reply, Connection)) for each in gc.get_objects())
            )
        finally:
            gc.enable()

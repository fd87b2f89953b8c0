"""What clients may not do, over raw sockets against the real server.

Where the bytes are no HTTP the server answers itself, with a status and no body; everything that
reaches the service is answered with problem details. Either way the others are served.
"""

import asyncio
import contextlib
import json

import aiohttp
import pytest

from mock_upstream import Fault, MockUpstream

from .conftest import Start
from .raw_http import RawClient, connection, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MAX_BODY = 65_536
VALID = b'{"userId":"1","title":"Standup"}'
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /api/addEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
END = b"\r\n"


def sized(body: bytes, head: bytes = POST) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def target(path: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: x\r\n\r\n"


async def others_are_served(client: aiohttp.ClientSession) -> None:
    async with connection(client) as other:
        await other.send(target(b"/api/getUsers"))
        assert (await other.answer()).status == 200


REFUSED_BY_THE_SERVER = {
    "too many headers": (GET + b"".join(b"x-%d: a\r\n" % n for n in range(200)) + END, 431),
    "a header too large": (GET + b"x: " + b"a" * 1_000_000 + END + END, 431),
    "a target too long": (target(b"/" + b"a" * 100_000), 414),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + VALID, 400),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\n" + VALID, 400),
    "a signed length": (POST + b"Content-Length: +5\r\n\r\n" + VALID, 400),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\n" + VALID, 400),
    "an endless length": (POST + b"Content-Length: " + b"9" * 30 + END + END, 400),
    "chunks not last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400),
    "almost chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    "a folded header": (GET + b"X-Request-ID: a\r\n b\r\n\r\n", 400),
    "a space before the colon": (GET + b"X-Request-ID : a\r\n\r\n", 400),
    "CR in X-Request-ID": (GET + b"X-Request-ID: a\rX-Evil: b\r\n\r\n", 400),
    "NUL in Idempotency-Key": (sized(VALID, POST + b"Idempotency-Key: a\x00b\r\n"), 400),
    "a control in traceparent": (GET + b"traceparent: 00\x0b\r\n\r\n", 400),
    "a later version": (target(b"/livez", version=b"2.0"), 400),
    "no version": (b"GET /livez\r\n\r\n", 400),
    "spaces in the target": (target(b"/api/get Users"), 400),
    "bytes in the target": (target(b"/api/getEventsByUserId/\xff"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), 400),
}


@pytest.mark.parametrize(
    ("sent", "status"), REFUSED_BY_THE_SERVER.values(), ids=REFUSED_BY_THE_SERVER.keys()
)
async def test_data_that_is_not_http_ends_the_connection(start: Start, sent: bytes, status: int):
    async with start() as client, connection(client) as hostile:
        await hostile.send(sent)

        answer = await hostile.answer()

        assert (answer.status, answer.body) == (status, b"")
        assert await hostile.closed()
        await others_are_served(client)


def faulty(value: bytes) -> bytes:
    return sized(b'{"userId":"1","title":' + value + b"}")


REFUSED_BY_US = {
    "another transfer coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "two hosts": (GET + b"Host: y\r\n\r\n", 400),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "an empty host": (b"GET /livez HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "a host with a space": (b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "a host with a bracket": (b"GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    "a host with a path": (b"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "a host with a user": (b"GET /livez HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "a chunk without a size": (chunked().replace(b"0\r\n\r\n", b"zz\r\n"), 400),
    "a chunk of negative size": (chunked().replace(b"0\r\n\r\n", b"-1\r\n"), 400),
    "a chunk of endless size": (chunked().replace(b"0\r\n\r\n", b"f" * 17 + b"\r\n"), 400),
    "a chunk longer than its size": (chunked(VALID).replace(b"20\r\n", b"1f\r\n"), 400),
    "an endless chunk extension": (chunked().replace(b"0\r\n\r\n", b"5;" + b"a" * 100_000), 400),
    "a byte too many": (sized(VALID.ljust(MAX_BODY + 1)), 413),
    "a byte too many in chunks": (chunked(VALID.ljust(MAX_BODY), b" "), 413),
    "a gigabyte announced": (POST + b"Content-Length: 1000000000\r\n\r\n", 413),
    "deep arrays": (sized(b"[" * 60_000), 400),
    "deep objects": (sized(b'{"a":' * 12_000), 400),
    "deeper than a body may be": (sized(b"[" * 100_000), 413),
    "deep arrays in a field": (faulty(b"[" * 60_000), 400),
    "a key twice": (sized(b'{"userId":"1","title":"a","title":"b"}'), 400),
    "a key twice, escaped": (sized(b'{"userId":"1","title":"a","titl\\u0065":"b"}'), 400),
    "NaN": (faulty(b"NaN"), 400),
    "Infinity": (faulty(b"-Infinity"), 400),
    "a huge float": (faulty(b"1e999"), 422),
    "a huge integer": (faulty(b"9" * 60_000), 422),
    "invalid UTF-8": (faulty(b'"\xff\xfe"'), 400),
    "overlong UTF-8": (faulty(b'"\xc0\xaf"'), 400),
    "a byte order mark": (sized(b"\xef\xbb\xbf" + VALID), 400),
    "UTF-16": (sized(VALID.decode().encode("utf-16")), 400),
    "half a surrogate pair": (faulty(b'"\\ud800"'), 400),
    "an escaped NUL": (faulty(b'"a\\u0000b"'), 422),
    "a bare control character": (faulty(b'"a\x00b"'), 400),
    "a body compressed": (sized(VALID, POST + b"Content-Encoding: gzip\r\n"), 415),
    "another charset": (sized(VALID, POST.replace(b"json", b"json; charset=utf-16")), 415),
    "Latin-1": (sized(VALID, POST.replace(b"json", b"json;charset=latin-1")), 415),
    "a quoted charset": (sized(VALID, POST.replace(b"json", b'json; charset="utf-16"')), 415),
    "a charset after a quoted one": (
        sized(VALID, POST.replace(b"json", b'json; a="charset=utf-8"; charset=utf-16')),
        415,
    ),
    "an empty content type": (sized(VALID, POST.replace(b"application/json", b"")), 415),
    "a long content type": (sized(VALID, POST.replace(b"json", b"json;a=" + b"b" * 9_000)), 415),
    "no content type": (sized(VALID, POST.replace(b"Content-Type", b"X-Type")), 415),
    "a key of two lines": (sized(VALID, POST + b"Idempotency-Key: a b\r\n"), 400),
    "two keys": (sized(VALID, POST + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), 400),
    "an unknown method": (target(b"/api/getUsers", b"BREW"), 405),
    "a method in lower case": (target(b"/api/getUsers", b"get"), 405),
    "TRACE": (target(b"/api/getUsers", b"TRACE"), 405),
    "OPTIONS": (target(b"/api/getUsers", b"OPTIONS"), 405),
    "CONNECT": (target(b"example.com:443", b"CONNECT"), 404),
    "OPTIONS for all": (target(b"*", b"OPTIONS"), 404),
    "a long target": (target(b"/api/" + b"a" * 60_000), 404),
    "an encoded slash": (target(b"/api%2FgetUsers"), 404),
    "an encoded slash in lower case": (target(b"/api%2fgetUsers"), 404),
    "a second slash": (target(b"//api/getUsers"), 404),
    "a path with dots": (target(b"/api/../livez"), 404),
    "another case": (target(b"/api/GetUsers"), 404),
    "no hex after %": (target(b"/api/getEventsByUserId/%zz"), 400),
    "no UTF-8 after %": (target(b"/api/getEventsByUserId/%ff%fe"), 400),
    "NUL after %": (target(b"/api/getEventsByUserId/1%00"), 400),
    "a line after the id": (target(b"/api/getEventsByUserId/1%0a"), 400),
    "a line after the path": (target(b"/api/getUsers%0a"), 404),
    "a path in the id": (target(b"/api/getEventsByUserId/..%2f..%2fadmin"), 400),
    "a flag twice": (target(b"/api/getEventsByUserId/1?partial=true&partial=true"), 400),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), REFUSED_BY_US.values(), ids=REFUSED_BY_US.keys())
async def test_requests_that_must_not_be_served_get_a_problem(
    start: Start, mock: MockUpstream, sent: bytes, status: int
):
    async with start() as client, connection(client) as hostile:
        await hostile.send(sent)

        answer = await hostile.answer()

        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == status
        assert mock.journal.counts["addEvent"] == 0
        await others_are_served(client)


FINE = {
    "HTTP/1.0": (target(b"/livez", version=b"1.0"), 200),
    "HTTP/1.0 without a host": (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    "an IPv6 host": (b"GET /livez HTTP/1.1\r\nHost: [::1]:3000\r\n\r\n", 200),
    "an encoded letter": (target(b"/%61pi/getUsers"), 200),
    **{
        f"content type {kind!r}": (sized(VALID, POST.replace(b"application/json", kind)), 200)
        for kind in (
            b"application/json;charset=utf8",
            b"application/json; charset=us-ascii",
            b"application/json\t; charset=\tutf-8",
            b"application/json\t;\tcharset=utf-8\t;\t",
            b'application/json; charset="us-ascii";',
            b"Application/JSON;",
            b'application/json; profile="a;charset=latin-1"',
            b'application/json; profile="a\\";charset=latin-1"; charset=utf-8',
            b'application/json; charset="UTF-8"',
        )
    },
    "an absolute target": (target(b"http://example.com/livez"), 200),
    "a query of nonsense": (target(b"/api/getUsers?%ff=%zz&&=;"), 200),
    "the same length twice": (sized(VALID, POST + b"Content-Length: %d\r\n" % len(VALID)), 200),
    "a body of just the most bytes": (sized(VALID.ljust(MAX_BODY)), 200),
    "a body in pieces": (chunked(VALID[:1], VALID[1:9], VALID[9:]), 200),
    "an escaped control character": (faulty(b'"a\\u0001b"'), 200),
    "a body where none belongs": (sized(b"hello", GET), 200),
}


@pytest.mark.parametrize(("sent", "status"), FINE.values(), ids=FINE.keys())
async def test_what_is_only_unusual_is_answered(start: Start, sent: bytes, status: int):
    async with start() as client, connection(client) as unusual:
        await unusual.send(sent)

        assert (await unusual.answer()).status == status


async def test_a_head_request_gets_the_headers_alone(start: Start):
    async with start() as client, connection(client) as raw:
        await raw.send(target(b"/api/getUsers", b"HEAD"))
        await raw.send(target(b"/livez"))

        head = await raw.answer(to_head=True)

        assert int(head.headers["content-length"]) > 0
        assert (await raw.answer()).body == b'{"status":"ok"}'


@pytest.mark.parametrize("order", [1, -1])
async def test_a_length_beside_chunks_smuggles_no_second_request(start: Start, order: int):
    """Chunks go before a length, and nothing of that connection is read as another request."""
    framing = [b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"][::order]
    smuggled = target(b"/api/getUsers")
    async with start() as client, connection(client) as hostile:
        await hostile.send(POST + b"".join(framing) + b"\r\n0\r\n\r\n" + smuggled)

        assert (await hostile.answer()).status == 400
        assert await hostile.closed()


@pytest.mark.parametrize("value", ["a\xe9", "a b", "x" * 129, "<script>", ""])
async def test_an_unfit_request_id_is_replaced_not_echoed(start: Start, value: str):
    async with start() as client, connection(client) as raw:
        await raw.send(GET + b"X-Request-ID: " + value.encode("latin-1") + END + END)

        headers = (await raw.answer()).headers

        assert headers["x-request-id"] != value
        assert len(headers["x-request-id"]) == 36


async def test_headers_that_take_too_long_end_the_connection(start: Start):
    async with start() as client, connection(client) as slow:
        await slow.send(GET)
        trickle = asyncio.create_task(_trickle(slow, b"x: y\r\n"))

        await others_are_served(client)

        assert await slow.closed()
        trickle.cancel()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (POST + b"Content-Length: 1000\r\n\r\n", b" "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
)
async def test_a_body_that_trickles_in_is_given_up_in_time(start: Start, head: bytes, piece: bytes):
    async with start(request_deadline=0.5) as client, connection(client) as slow:
        await slow.send(head)
        trickle = asyncio.create_task(_trickle(slow, piece))

        await others_are_served(client)

        assert (await slow.answer()).status == 408
        trickle.cancel()


async def test_an_endless_body_is_not_read_on(start: Start):
    block = b"2000\r\n" + b" " * 8_192 + END
    async with start() as client, connection(client) as endless:
        await endless.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            await _send_often(endless, block, 10_000)

        await others_are_served(client)


async def test_a_crowd_of_slow_bodies_does_not_keep_others_waiting(start: Start):
    async with start() as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(_send_half(client))
        await others_are_served(client)


async def test_slow_bodies_occupy_no_place_in_flight(start: Start):
    async with start(max_in_flight=2) as client, contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            slow = await stack.enter_async_context(connection(client))
            await slow.send(POST + b"Content-Length: 100\r\n\r\n{")
        await asyncio.sleep(0)

        async with connection(client) as other:
            await other.send(sized(VALID))
            assert (await other.answer()).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST.replace(b"application/json", b"text/plain"), 415),
        (POST, 413),
        (POST.replace(b"addEvent", b"nothing"), 404),
        (POST.replace(b"addEvent", b"getUsers"), 405),
    ],
)
async def test_who_sends_twenty_megabytes_before_reading_sees_why_they_were_refused(
    start: Start, sent: bytes, status: int
):
    async with start() as client:
        await upload_is_refused(client, sent, status)


async def test_a_large_upload_over_the_rate_gets_its_429(start: Start):
    async with start(rate_limit="1/hour") as client:
        await others_are_served(client)
        await upload_is_refused(client, POST, 429)


async def test_a_large_upload_while_load_is_shed_gets_its_503(start: Start, mock: MockUpstream):
    mock.faults.set("getUsers", Fault(mode="hang"))
    async with start(max_in_flight=1) as client, connection(client) as waits:
        await waits.send(target(b"/api/getUsers"))
        await eventually(lambda: mock.journal.counts["getUsers"] == 1)

        await upload_is_refused(client, POST, 503)


async def upload_is_refused(client: aiohttp.ClientSession, head: bytes, status: int) -> None:
    async with connection(client) as uploader:
        await uploader.send(sized(b" " * 20_000_000, head))

        answer = await uploader.answer()

        assert answer.status == status
        assert json.loads(answer.body)["status"] == status
        assert answer.headers["connection"] == "close"
        assert await uploader.closed()


async def _send_half(client: aiohttp.ClientSession) -> None:
    async with connection(client) as slow:
        await slow.send(POST + b"Content-Length: 100\r\n\r\n{")
        await others_are_served(client)


async def _send_often(client: RawClient, block: bytes, times: int) -> None:
    for _ in range(times):
        await client.send(block)


async def _trickle(client: RawClient, piece: bytes) -> None:
    while True:
        try:
            await client.send(piece)
        except ConnectionError:
            return
        await asyncio.sleep(0.02)

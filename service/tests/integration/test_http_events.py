"""The client of the events API: what it sends, and what it makes of what comes back."""

import asyncio
import gzip
import json
import resource
import socket
import zlib

import msgspec
import pytest

from .crowd import status_of
from .observed_service import observed, problem
from .scripted_upstream import Call, Connection, by_path, replies, response, says, scripted

pytestmark = pytest.mark.anyio


ALICE = b'{"id":"1","name":"Alice","events":["7"]}'
EVENT = b'{"id":"7","userId":"1","title":"Tea","description":""}'
GOOD = by_path(
    {
        "/": replies(status="404 Not Found"),
        "/getUsers": replies(b"[" + ALICE + b"]"),
        "/getUserById/1": replies(ALICE),
        "/getEvents": replies(b"[" + EVENT + b"]"),
        "/getEventById/7": replies(EVENT),
        "/addEvent": replies(b'{"success":true,"id":"9"}'),
    }
)
NEW = {"userId": "1", "title": "Tea", "description": "at four"}


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("/api/getUsers", ["GET /getUsers HTTP/1.1"]),
        ("/api/getEvents", ["GET /getEvents HTTP/1.1"]),
        (
            "/api/getEventsByUserId/1",
            ["GET /getUserById/1 HTTP/1.1", "GET /getEventById/7 HTTP/1.1"],
        ),
    ],
)
async def test_reads_are_gets_of_the_upstreams_paths(path: str, lines: list[str]):
    async with scripted(GOOD) as upstream, observed(upstream_url=upstream.url) as service:
        async with service.client.get(path) as reply:
            assert reply.status == 200

        assert [call.line for call in upstream.calls] == lines
        assert all(not call.body for call in upstream.calls)


async def test_an_event_is_posted_as_json_under_an_id_of_ours():
    async with scripted(GOOD) as upstream, observed(upstream_url=upstream.url) as service:
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert await reply.json() == {"success": True, "id": "9"}

        (call,) = upstream.calls
        body = json.loads(call.body)
        assert call.line == "POST /addEvent HTTP/1.1"
        assert call.headers["content-type"] == "application/json"
        assert call.headers["idempotency-key"] == body["id"]
        assert body == {**NEW, "id": body["id"]}


async def test_calls_say_who_asks_and_for_which_request():
    trace = "0af7651916cd43dd8448eb211c80319c"
    ours = {
        "X-Request-ID": "mine",
        "traceparent": f"00-{trace}-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
    }
    async with scripted(GOOD) as upstream, observed(upstream_url=upstream.url) as service:
        async with service.client.get("/api/getUsers", headers=ours):
            pass

        headers = upstream.calls[0].headers
        assert headers["x-request-id"] == "mine"
        assert headers["traceparent"].split("-")[:2] == ["00", trace]
        assert headers["tracestate"] == "vendor=1"
        assert headers["accept"] == "application/json"
        assert headers["user-agent"] == "event-service"
        assert headers["accept-encoding"] == "identity"
        assert "cookie" not in headers


async def test_a_tracestate_that_is_not_text_is_ignored():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with scripted(GOOD) as upstream, observed(upstream_url=upstream.url) as service:
        host, port = service.client._base_url.host, service.client._base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"GET /api/getUsers HTTP/1.1\r\nHost: x\r\nConnection: close\r\ntraceparent: "
            + parent.encode()
            + b"\r\ntracestate: a=\xff\xfe\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()

        assert upstream.calls[0].headers["traceparent"].split("-")[1] == parent.split("-")[1]


async def test_a_path_before_the_upstreams_paths_is_kept():
    script = by_path({"/": replies(status="404 No"), "/base/v1/getUsers": replies(b"[]")})
    async with (
        scripted(script) as upstream,
        observed(upstream_url=f"{upstream.url}/base/v1/") as service,
        service.client.get("/api/getUsers") as reply,
    ):
        assert reply.status == 200


async def test_paths_of_another_upstream_are_honoured():
    paths = {"getUserById": "/people/{id}/card", "getEventById": "/e/{id}"}
    script = by_path({"/people/1/card": replies(ALICE), "/e/7": replies(EVENT)})
    async with (
        scripted(script) as upstream,
        observed(upstream_url=upstream.url, upstream_paths=paths) as service,
        service.client.get("/api/getEventsByUserId/1") as reply,
    ):
        assert reply.status == 200


async def test_secret_headers_go_to_the_upstream_and_nowhere_else():
    secret = "hunter2-and-more"
    async with (
        scripted(by_path({"/": replies(status="500 No"), "/getUsers": replies(b"[]")})) as upstream,
        observed(upstream_url=upstream.url, upstream_headers={"X-Api-Key": secret}) as service,
    ):
        async with service.client.get("/api/getUsers") as reply:
            said = str(reply.headers) + await reply.text()
        async with service.client.get("/api/getEvents") as reply:
            said += str(reply.headers) + await reply.text()

        assert {call.headers["x-api-key"] for call in upstream.calls} == {secret}
        assert secret not in said
        assert secret not in str(service.lines)


async def test_proxy_variables_are_not_heeded(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with (
        scripted(GOOD) as upstream,
        observed(upstream_url=upstream.url) as service,
        service.client.get("/api/getUsers") as reply,
    ):
        assert reply.status == 200


async def test_cookies_of_the_upstream_are_forgotten():
    script = replies(b"[]", headers=("Set-Cookie: a=b",))
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        for _ in range(2):
            async with service.client.get("/api/getUsers") as reply:
                assert "set-cookie" not in reply.headers

        assert "cookie" not in upstream.calls[1].headers


async def test_an_upstream_that_no_call_could_be_made_to_stops_the_start():
    with pytest.raises(ValueError, match="no space"):
        async with observed(upstream_url="http://exa mple"):
            pytest.fail("it started")


class KeptOpen:
    """An upstream that answers on one connection, again and again, until told to leave."""

    def __init__(self, body: bytes, *, leave_after: int, unannounced: bool) -> None:
        self._reply = response(body).replace(b"Connection: close\r\n", b"")
        self._leave_after = leave_after
        self._unannounced = unannounced

    async def __call__(self, connection: Connection, _call: Call) -> None:
        for _ in range(self._leave_after - 1):
            await connection.send(self._reply)
            await connection.read_call()
        await connection.send(self._reply)
        if self._unannounced:
            # The next call is read and then left without a reply: to the client this is the
            # race of its call with the end of the connection.
            await connection.read_call()


@pytest.mark.parametrize("unannounced", [False, True])
async def test_a_read_survives_a_connection_that_the_upstream_left(*, unannounced: bool):
    script = KeptOpen(b"[]", leave_after=2, unannounced=unannounced)
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        for _ in range(6):
            async with service.client.get("/api/getUsers") as reply:
                assert reply.status == 200
            await asyncio.sleep(0.01)

        assert upstream.connections > 1


async def test_a_write_whose_connection_was_closed_is_sent_once_more_unchanged():
    script = KeptOpen(b'{"success":true}', leave_after=1, unannounced=True)
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        for _ in range(2):
            async with service.client.post("/api/addEvent", json=NEW) as reply:
                assert reply.status == 200

        assert upstream.connections == 2
        assert service.of("addEvent") == ["success", "success"]


async def test_a_write_survives_a_connection_that_the_upstream_left_in_time():
    script = KeptOpen(b'{"success":true}', leave_after=1, unannounced=False)
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        for _ in range(3):
            async with service.client.post("/api/addEvent", json=NEW) as reply:
                assert reply.status == 200
            await asyncio.sleep(0.05)

        assert upstream.connections == 3


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"[" + EVENT + b"]", mtime=0)),
        ("deflate", zlib.compress(b"[" + EVENT + b"]")),
    ],
)
async def test_a_compressed_reply_is_read_although_none_was_asked_for(coding: str, body: bytes):
    script = replies(body, headers=(f"Content-Encoding: {coding}",))
    async with (
        scripted(script) as upstream,
        observed(upstream_url=upstream.url) as service,
        service.client.get("/api/getEvents") as reply,
    ):
        assert [event["id"] for event in await reply.json()] == ["7"]


async def test_more_than_100_header_fields_are_not_an_outage():
    fields = tuple(f"X-{n}: {'a' * 200}" for n in range(250))
    script = replies(b"[]", headers=fields)
    async with (
        scripted(script) as upstream,
        observed(upstream_url=upstream.url) as service,
        service.client.get("/api/getEvents") as reply,
    ):
        assert reply.status == 200


@pytest.mark.parametrize(
    "hostile", ["../users", "", "a" * 129, "é", "7/8", "7?x=1", "7#", "%2e%2e", "7\n"]
)
async def test_an_impossible_id_in_a_list_goes_into_no_path(hostile: str):
    user = msgspec.json.encode({"id": "1", "name": "Alice", "events": ["7", hostile]})
    scripts = {"/getUserById": replies(user), "/getEventById/7": replies(EVENT)}
    async with (
        scripted(by_path(scripts)) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        async with service.client.get("/api/getEventsByUserId/1") as strict:
            assert (await problem(strict))[:2] == (502, "upstream-error")
        (line,) = (line for line in service.lines if line["event"] == "request")
        assert (line["operation"], line["reason"]) == ("getEventById", "impossible event id")

        async with service.client.get("/api/getEventsByUserId/1?partial=true") as partial:
            body = await partial.json()
        assert [event["id"] for event in body["events"]] == ["7"]
        assert [(error["id"], error["status"]) for error in body["errors"]] == [(hostile, 502)]
        assert {call.path for call in upstream.calls} <= {"/getUserById/1", "/getEventById/7"}


async def test_an_id_that_stands_twice_in_a_list_stands_twice_in_the_reply():
    user = b'{"id":"1","name":"Alice","events":["7","7"]}'
    scripts = {"/getUserById": replies(user), "/getEventById": replies(EVENT)}
    async with (
        scripted(by_path(scripts)) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        async with service.client.get("/api/getEventsByUserId/1") as reply:
            assert [event["id"] for event in await reply.json()] == ["7", "7"]
        assert len(upstream.calls) == 2


async def test_informational_replies_before_the_real_one_are_skipped():
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with (
        scripted(says(early + response(b"[]"))) as upstream,
        observed(upstream_url=upstream.url) as service,
        service.client.get("/api/getUsers") as reply,
    ):
        assert reply.status == 200


async def test_a_text_of_the_upstreams_reaches_the_client_as_it_is():
    event = {"id": "7", "userId": "1", "title": "<b>\u2028\x00 \U0001f600", "description": '"\\'}
    scripts = {"/getEvents": replies(msgspec.json.encode([event]))}
    async with (
        scripted(by_path(scripts)) as upstream,
        observed(upstream_url=upstream.url) as service,
        service.client.get("/api/getEvents") as reply,
    ):
        assert await reply.json() == [event]


async def test_connections_that_break_off_under_many_calls_say_that_the_limit_may_be_too_high():
    crowd = asyncio.Event()

    async def hang_up(_connection: Connection, _call: Call) -> None:
        if upstream.in_flight > 101:
            crowd.set()
        await crowd.wait()

    user = msgspec.json.encode({"id": "1", "name": "Alice", "events": [str(n) for n in range(120)]})
    scripts = {"/getUserById": replies(user), "/getEventById": hang_up}
    async with (
        scripted(by_path(scripts)) as upstream,
        observed(upstream_url=upstream.url, retry_attempts=1) as service,
        service.client.get("/api/getEventsByUserId/1") as reply,
    ):
        assert (await problem(reply))[:2] == (502, "upstream-error")
        (line,) = (line for line in service.lines if "break off" in str(line["event"]))
        assert line["operation"] == "getEventById"
        assert line["in_flight"] > 100


async def test_a_call_whose_client_leaves_ends_at_the_upstream_at_once():
    async def script(connection: Connection, _call: Call) -> None:
        came.set()
        await connection.hang()
        left.set()

    came, left = asyncio.Event(), asyncio.Event()
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        call = asyncio.create_task(status_of(service.client, "/api/getUsers"))
        await came.wait()
        call.cancel()
        # Long before any time limit of ours.
        await asyncio.wait_for(left.wait(), 1)


async def test_a_lack_of_our_own_descriptors_is_not_a_failure_of_the_upstream():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with scripted(GOOD) as upstream, observed(upstream_url=upstream.url) as service:
        # The connection of this client is open; there is no further descriptor.
        assert await status_of(service.client, "/livez") == 200
        with socket.socket() as following:
            resource.setrlimit(resource.RLIMIT_NOFILE, (following.fileno(), hard))
        try:
            for _ in range(4):
                async with service.client.post("/api/addEvent", json=NEW) as reply:
                    assert (await problem(reply))[:2] == (503, "overloaded")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert set(service.of("addEvent")) == {"neutral"}
        assert {line.get("reason") for line in service.lines if line["event"] == "request"} >= {
            "no connection can be made: Too many open files"
        }
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert reply.status == 200

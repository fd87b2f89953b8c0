"""What ordinary upstreams do otherwise than ours, and what the service makes of it."""

import gzip
import json
from typing import Any

import pytest
from yarl import URL

from mock_upstream import run_mock

from .observed_service import ObservedService, observed, problem
from .scripted_upstream import Script, by_path, replies, scripted

pytestmark = pytest.mark.anyio

NEW = {"userId": "2", "title": "Concert"}
BY_USER = {"getEventsByUserId": "/getEvents?userId={id}"}


async def get(service: ObservedService, path: str) -> tuple[int, Any]:
    async with service.client.get(path) as reply:
        return reply.status, await reply.json(content_type=None)


async def add(service: ObservedService) -> tuple[int, Any]:
    async with service.client.post("/api/addEvent", json=NEW) as reply:
        return reply.status, await reply.json(content_type=None)


def line(service: ObservedService) -> dict[str, Any]:
    return next(dict(each) for each in reversed(service.lines) if each["event"] == "request")


@pytest.mark.parametrize("dialect", ["plain", "rest", "nulls", "numbers"])
async def test_every_dialect_is_understood(dialect: Any):
    async with (
        run_mock(dialect=dialect, event_delay=0) as mock,
        observed(upstream_url=mock.url) as service,
    ):
        status, users = await get(service, "/api/getUsers")
        _, events = await get(service, "/api/getEventsByUserId/1")
        _, none = await get(service, "/api/getEventsByUserId/2")
        added_status, added = await add(service)
        _, bobs = await get(service, "/api/getEventsByUserId/2")
        unknown, _ = await get(service, "/api/getEventsByUserId/9")

        assert (status, added_status, unknown) == (200, 200, 404)
        assert [(user["id"], user["events"]) for user in users] == [
            ("1", ["101", "102"]),
            ("2", []),
            ("3", ["103"]),
        ]
        assert [(event["id"], event["userId"]) for event in events] == [("101", "1"), ("102", "1")]
        assert all(isinstance(event["description"], str) for event in events)
        assert none == []
        assert [event["id"] for event in bobs] == [added["id"]]
        assert set(service.of("addEvent")) == {"success"}


async def test_three_writes_that_a_rest_api_stored_are_three_successes():
    async with (
        run_mock(dialect="rest", accept=10) as mock,
        observed(upstream_url=mock.url) as service,
    ):
        assert [(await add(service))[0] for _ in range(3)] == [200, 200, 200]
        bob = mock.store.user("2")
        assert bob is not None
        assert len(bob.events) == 3


async def test_a_users_events_are_one_call_where_the_upstream_can():
    async with (
        run_mock(event_delay=3600) as mock,
        observed(upstream_url=mock.url, upstream_paths=BY_USER) as service,
    ):
        _, events = await get(service, "/api/getEventsByUserId/1")
        _, none = await get(service, "/api/getEventsByUserId/2")
        _, partial = await get(service, "/api/getEventsByUserId/1?partial=true")

        assert [event["id"] for event in events] == ["101", "102"]
        assert none == []
        assert partial == {"events": events, "errors": [], "partial": False}
        assert mock.journal.counts == {
            "getUsers": 0,
            "getUserById": 0,
            "getEvents": 3,
            "getEventById": 0,
            "addEvent": 0,
        }


async def test_the_order_of_one_call_is_the_upstreams():
    events = [{"id": each, "userId": "1", "title": "T", "description": ""} for each in "312"]
    async with (
        scripted(replies(json.dumps(events).encode())) as upstream,
        observed(upstream_url=upstream.url, upstream_paths=BY_USER) as service,
    ):
        assert await get(service, "/api/getEventsByUserId/1") == (200, events)


@pytest.mark.parametrize("status", ["404 No", "410 Gone", "400 Bad", "422 No"])
async def test_one_call_may_say_that_there_is_no_such_user(status: str):
    async with (
        scripted(replies(status=status)) as upstream,
        observed(upstream_url=upstream.url, upstream_paths=BY_USER) as service,
    ):
        assert (await get(service, "/api/getEventsByUserId/1"))[0] == 404
        assert line(service)["operation"] == "getEventsByUserId"


async def test_an_id_goes_into_a_path_as_it_is_and_into_a_query_encoded():
    odd = "a.b~!$&'()*+,;=:@-_"
    encoded = "a.b~%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40-_"
    user = json.dumps({"id": odd, "name": "Odd", "events": [odd]}).encode()
    scripts = {
        "/getUserById": replies(user),
        "/getEventById": replies(b'{"id":"7"}'),
        "/getEvents": replies(b"[]"),
    }
    in_one_call = {"getEventsByUserId": "/getEvents?of={id}&full=1"}
    async with scripted(by_path(scripts)) as upstream:
        for paths in ({}, in_one_call):
            async with observed(upstream_url=upstream.url, upstream_paths=paths) as service:
                assert (await get(service, f"/api/getEventsByUserId/{odd}"))[0] == 200

        assert [call.path for call in upstream.calls] == [
            f"/getUserById/{odd}",
            f"/getEventById/{odd}",
            f"/getEvents?of={encoded}&full=1",
        ]


@pytest.mark.parametrize("user_id", [".", "..", "%2e", "%2E%2e", "a%20b", "é", "a%25b", "x" * 129])
async def test_an_id_that_no_path_may_hold_is_refused_before_a_call(user_id: str):
    async with run_mock() as mock, observed(upstream_url=mock.url) as service:
        async with service.client.get(_raw(service, user_id)) as reply:
            assert reply.status in {400, 404}

        assert not mock.journal.entries


def _raw(service: ObservedService, user_id: str) -> Any:
    base = str(service.client._base_url).rstrip("/")
    return URL(f"{base}/api/getEventsByUserId/{user_id}", encoded=True)


async def test_a_bad_record_cuts_off_nobody():
    good = b'{"id":"1","name":"A","events":[]}'
    scripts: dict[str, Script] = {
        "/getUserById/1": replies(good),
        "/getUserById/bad": replies(b'{"id":"bad","name":{"first":"B"},"events":[]}'),
    }
    async with (
        scripted(by_path(scripts)) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        for _ in range(25):
            async with service.client.get("/api/getEventsByUserId/bad") as reply:
                assert (await problem(reply))[:2] == (502, "upstream-error")
        assert line(service)["reason"] == "$.name: expected str, got object"

        assert await get(service, "/api/getEventsByUserId/1") == (200, [])
        assert service.of("getUserById") == ["neutral"] * 25 + ["success"]
        assert len(upstream.calls) == 26


async def test_bodies_that_are_not_json_open_the_circuit():
    async with (
        scripted(replies(b"<html>")) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        for _ in range(20):
            await get(service, "/api/getUsers")
        status, body = await get(service, "/api/getUsers")

        assert (status, body["type"]) == (503, "/problems/circuit-open")


@pytest.mark.parametrize(
    ("status", "level"), [(404, "info"), (410, "warning"), (400, "warning"), (422, "warning")]
)
async def test_a_user_that_is_unknown_in_an_odd_way_is_logged_as_a_warning(status: int, level: str):
    async with (
        scripted(replies(status=f"{status} No")) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        assert (await get(service, "/api/getEventsByUserId/5"))[0] == 404

        told = line(service)
        assert (told["log_level"], told["operation"]) == (level, "getUserById")
        where = f"GET {upstream.url}/getUserById/{{id}}"
        assert told["reason"] == f"status {status} to {where}"


@pytest.mark.parametrize("path", ["/api/getUsers", "/api/getEventsByUserId/1"])
@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_credentials_are_named_in_the_log_and_nowhere_else(path: str, status: int):
    async with (
        scripted(replies(status=f"{status} No")) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        async with service.client.get(path) as reply:
            told, _, members = await problem(reply)

        assert told == 502
        assert "credentials" not in str(members)
        assert line(service)["log_level"] == "error"
        assert "credentials in UPSTREAM_HEADERS" in line(service)["reason"]


async def test_a_refused_event_is_told_with_the_upstreams_status():
    async with (
        scripted(replies(status="415 No")) as upstream,
        observed(upstream_url=upstream.url) as service,
        service.client.post("/api/addEvent", json=NEW) as reply,
    ):
        status, slug, members = await problem(reply)

        assert (status, slug, members["upstream_status"]) == (422, "upstream-rejected", 415)
        assert "retry-after" not in reply.headers


async def test_a_key_that_comes_with_another_event_is_refused_and_loses_no_event():
    headers = {"Idempotency-Key": "mine"}
    async with run_mock() as mock, observed(upstream_url=mock.url) as service:
        async with service.client.post("/api/addEvent", json=NEW, headers=headers) as first:
            assert first.status == 200
        other = {**NEW, "title": "Theatre"}
        async with service.client.post("/api/addEvent", json=other, headers=headers) as second:
            assert (await problem(second))[:2] == (422, "upstream-rejected")


@pytest.mark.parametrize(
    "traced", [None, "x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"]
)
async def test_no_trace_context_is_made_up(traced: str | None):
    headers = {} if traced is None else {"traceparent": traced, "tracestate": "a=1"}
    async with scripted(replies(b"[]")) as upstream, observed(upstream_url=upstream.url) as service:
        async with service.client.get("/api/getUsers", headers=headers) as reply:
            assert reply.status == 200

        assert not {"traceparent", "tracestate"} & upstream.calls[0].headers.keys()


async def test_a_trace_context_of_several_lines_is_joined_in_order():
    headers = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff"),
        ("tracestate", "b=2"),
        ("tracestate", "a=1"),
    ]
    async with scripted(replies(b"[]")) as upstream, observed(upstream_url=upstream.url) as service:
        async with service.client.get("/api/getUsers", headers=headers) as reply:
            assert reply.status == 200

        sent = upstream.calls[0].headers
        assert sent["tracestate"] == "b=2,a=1"
        assert sent["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
        assert sent["traceparent"].endswith("-01")


async def test_a_long_tracestate_is_not_passed_on():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "tracestate": "a=" + "x" * 9_000}
    async with scripted(replies(b"[]")) as upstream, observed(upstream_url=upstream.url) as service:
        async with service.client.get("/api/getUsers", headers=headers) as reply:
            assert reply.status == 200

        assert "traceparent" in upstream.calls[0].headers
        assert "tracestate" not in upstream.calls[0].headers


async def test_many_headers_are_not_an_outage():
    script = replies(b"[]", headers=tuple(f"X-Header-{n}: {'v' * 100}" for n in range(240)))
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        assert await get(service, "/api/getUsers") == (200, [])
        assert service.of("getUsers") == ["success"]


async def test_a_byte_order_mark_is_skipped():
    script = replies("\ufeff[]".encode())
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        assert await get(service, "/api/getUsers") == (200, [])


async def test_the_body_of_a_write_may_come_encoded_too():
    stored = gzip.compress(b'{"id":"theirs"}')
    script = replies(stored, status="201 Created", headers=("Content-Encoding: gzip",))
    async with scripted(script) as upstream, observed(upstream_url=upstream.url) as service:
        assert await add(service) == (200, {"success": True, "id": "theirs"})

"""Every row of the error table, each seen once as a client sees it."""

import re
from typing import Any

import aiohttp
import pytest

from mock_upstream import Fault, MockUpstream

from .conftest import Start

pytestmark = pytest.mark.anyio

VALID = b'{"userId":"1","title":"Standup"}'
JSON = {"Content-Type": "application/json"}


async def problem_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem, after the checks that hold for every one."""
    problem: dict[str, Any] = await response.json(content_type="application/problem+json")
    assert problem["status"] == response.status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.url.raw_path
    assert problem["request_id"] == response.headers["X-Request-ID"]
    return {**problem, "type": problem["type"].removeprefix("/problems/")}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "expected"),
    [
        ("GET", "/api/getEventsByUserId/a%20b", None, {}, (400, "invalid-request")),
        ("GET", "/api/getEventsByUserId/" + "x" * 129, None, {}, (400, "invalid-request")),
        ("GET", "/api/getEventsByUserId/1?partial=maybe", None, {}, (400, "invalid-request")),
        ("POST", "/api/addEvent", b"{", JSON, (400, "invalid-request")),
        ("POST", "/api/addEvent", b"", JSON, (400, "invalid-request")),
        (
            "POST",
            "/api/addEvent",
            VALID,
            JSON | {"Idempotency-Key": "a b"},
            (400, "invalid-request"),
        ),
        ("POST", "/api/addEvent", b"[]", JSON, (422, "validation-failed")),
        ("POST", "/api/addEvent", b"{}", JSON, (422, "validation-failed")),
        (
            "POST",
            "/api/addEvent",
            VALID,
            {"Content-Type": "text/plain"},
            (415, "unsupported-media-type"),
        ),
        ("POST", "/api/addEvent", b" " * 65_537, JSON, (413, "payload-too-large")),
        ("GET", "/api/nothing", None, {}, (404, "not-found")),
        ("GET", "/api/getUsers/", None, {}, (404, "not-found")),
        ("GET", "/api/getEventsByUserId/99", None, {}, (404, "user-not-found")),
        ("POST", "/api/getUsers", None, {}, (405, "method-not-allowed")),
        ("GET", "/api/addEvent", None, {}, (405, "method-not-allowed")),
    ],
)
async def test_what_a_client_does_wrong_is_told_precisely(
    start: Start,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    expected: tuple[int, str],
):
    async with (
        start() as client,
        client.request(method, path, data=body, headers=headers) as response,
    ):
        problem = await problem_of(response)

    assert (response.status, problem["type"]) == expected


async def test_a_method_that_is_not_allowed_names_those_that_are(start: Start):
    async with start() as client, client.delete("/api/addEvent") as response:
        assert response.headers["Allow"] == "POST"


async def test_every_fault_of_a_body_is_told_with_its_path(start: Start):
    body = {"userId": "a/b", "title": "", "description": 5, "colour": "red"}
    async with start() as client, client.post("/api/addEvent", json=body) as response:
        problem = await problem_of(response)

    assert {error["path"] for error in problem["errors"]} == {
        "$.userId",
        "$.title",
        "$.description",
        "$.colour",
    }
    assert all(error["message"] for error in problem["errors"])


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=500), (502, "upstream-error")),
        (Fault(mode="reset"), (502, "upstream-error")),
        (Fault(mode="garbage"), (502, "upstream-error")),
        (Fault(body='{"success":false}', status=200), (502, "upstream-error")),
        (Fault(status=429), (503, "upstream-unavailable")),
        (Fault(status=503), (503, "upstream-unavailable")),
        (Fault(status=404), (404, "user-not-found")),
        (Fault(mode="hang"), (504, "upstream-timeout")),
    ],
)
async def test_what_the_upstream_does_wrong_is_told_apart(
    start: Start, mock: MockUpstream, fault: Fault, expected: tuple[int, str]
):
    mock.faults.set("addEvent", fault)
    async with (
        start(upstream_timeout=0.1) as client,
        client.post("/api/addEvent", data=VALID, headers=JSON) as response,
    ):
        problem = await problem_of(response)

    assert (response.status, problem["type"]) == expected


@pytest.mark.parametrize(("asked", "told"), [("7", "7"), (None, "1")])
async def test_the_upstreams_retry_after_is_passed_on(
    start: Start, mock: MockUpstream, asked: str | None, told: str
):
    headers = {"Retry-After": asked} if asked else {}
    mock.faults.set("getUsers", Fault(status=503, headers=headers))
    async with start(retry_attempts=1) as client, client.get("/api/getUsers") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, told)


async def test_an_unknown_event_in_a_users_list_is_the_upstreams_error(
    start: Start, mock: MockUpstream
):
    mock.faults.set("getEventById", Fault(status=404))
    async with start() as client, client.get("/api/getEventsByUserId/1") as response:
        problem = await problem_of(response)

    assert (response.status, problem["type"]) == (502, "upstream-error")


async def test_an_open_circuit_is_told_with_the_time_of_the_next_try(
    start: Start, mock: MockUpstream
):
    mock.faults.set("addEvent", Fault(status=500))
    async with start() as client:
        for _ in range(3):
            await client.post("/api/addEvent", data=VALID, headers=JSON)
        async with client.post("/api/addEvent", data=VALID, headers=JSON) as response:
            problem = await problem_of(response)

    assert (response.status, problem["type"]) == (503, "circuit-open")
    assert problem["breaker"] == "addEvent"
    assert response.headers["Retry-After"] == "10"
    assert mock.journal.counts["addEvent"] == 3


async def test_the_deadline_ends_a_request_that_waits_too_long(start: Start, mock: MockUpstream):
    mock.faults.set("getUsers", Fault(mode="hang"))
    async with start(request_deadline=0.2) as client, client.get("/api/getUsers") as response:
        problem = await problem_of(response)

    assert (response.status, problem["type"]) == (504, "upstream-timeout")


async def test_a_bug_of_ours_tells_a_client_nothing_but_the_request_id(start: Start):
    class Broken:
        async def users(self) -> list[object]:
            raise ZeroDivisionError("secret detail")

        events = user = event = add_event = users

    async with (
        start(app={"source": Broken()}) as client,
        client.get("/api/getUsers", headers={"X-Request-ID": "call-1"}) as response,
    ):
        text = await response.text()
        problem = await problem_of(response)

    assert (response.status, problem["type"]) == (500, "internal-error")
    assert problem["request_id"] == "call-1"
    assert "secret" not in text
    assert not re.search(r"Zero|Traceback|\.py", text)

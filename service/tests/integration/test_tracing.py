import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mock_upstream import Fault, MockUpstream

from .conftest import Start
from .otlp_receiver import Received, members, receiving
from .server_process import serve

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
BY_ID = "/api/getEventsByUserId/{id}"
TRACED = {"tracing": True}
NEW_EVENT = {"userId": "1", "title": "Standup"}


@pytest.fixture
async def received(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Received]:
    """What arrives until the service, which sends its last spans when it ends, has ended."""
    async with receiving() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        yield received


async def test_a_request_and_its_calls_are_one_trace_continued_upstream(
    start: Start, mock: MockUpstream, received: Received
):
    headers = {
        "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01",
        "tracestate": "vendor=opaque",
        "User-Agent": "tests/1",
    }
    async with start(app=TRACED) as client:
        port = client._base_url.port
        await client.get("/api/getEventsByUserId/1?partial=false", headers=headers)

    server = received.one(f"GET {BY_ID}")
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.trace_id.hex() == TRACE_ID
    assert server.parent_span_id.hex() == PARENT_ID
    assert server.trace_state == "vendor=opaque"
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert members(server) == {
        "http.request.method": "GET",
        "http.route": BY_ID,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/api/getEventsByUserId/1",
        "url.query": "partial=false",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": port,
        "client.address": "127.0.0.1",
        "user_agent.original": "tests/1",
    }

    user, *events = received.named("GET /getUserById/{id}") + received.named(
        "GET /getEventById/{id}"
    )
    assert len(events) == 2
    for span in (user, *events):
        assert span.kind == Span.SPAN_KIND_CLIENT
        assert (span.trace_id, span.parent_span_id) == (server.trace_id, server.span_id)
        assert server.start_time_unix_nano <= span.start_time_unix_nano
    assert members(user) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": int(mock.url.rpartition(":")[2]),
        "upstream.operation": "getUserById",
        "url.full": f"{mock.url}/getUserById/1",
        "url.template": "/getUserById/{id}",
    }
    assert {entry.traceparent for entry in mock.journal.entries} == {
        f"00-{TRACE_ID}-{span.span_id.hex()}-01" for span in (user, *events)
    }
    assert {span.trace_state for span in (user, *events)} == {"vendor=opaque"}


async def test_who_asks_for_no_trace_gets_none_and_neither_does_the_upstream(
    start: Start, mock: MockUpstream, received: Received
):
    async with start(app=TRACED) as client:
        await client.get("/api/getUsers", headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"})

    assert received.spans == []
    (entry,) = mock.journal.entries
    traceparent = entry.traceparent
    assert traceparent is not None
    assert traceparent.startswith(f"00-{TRACE_ID}-")
    assert PARENT_ID not in traceparent
    assert traceparent.endswith("-00")


async def test_a_trace_begins_here_where_the_caller_brings_none(start: Start, received: Received):
    async with start(app=TRACED) as client:
        await client.get("/api/getUsers", headers={"traceparent": "not one"})

    assert received.one("GET /api/getUsers").parent_span_id == b""


async def test_each_retry_is_a_span_with_its_number(
    start: Start, mock: MockUpstream, received: Received
):
    mock.faults.set("getUsers", Fault(status=500, first_n=2))
    async with start(app=TRACED) as client:
        assert (await client.get("/api/getUsers")).status == 200
        await client.get("/api/getUsers")

    attempts = [members(span) for span in received.named("GET /getUsers")]
    numbers = [attempt.get("http.request.resend_count") for attempt in attempts]
    assert numbers == [None, 1, 2, None]
    statuses = [attempt["http.response.status_code"] for attempt in attempts]
    assert statuses == [500, 500, 200, 200]
    assert [attempt.get("error.type") for attempt in attempts] == ["500", "500", None, None]


async def test_who_shares_a_call_is_linked_to_who_makes_it(
    start: Start, mock: MockUpstream, received: Received
):
    mock.faults.set("getUsers", Fault(delay=0.2))
    async with start(app=TRACED) as client:
        await asyncio.gather(*(client.get("/api/getUsers") for _ in range(3)))

    leader = received.one("GET /getUsers").parent_span_id
    requests = received.named("GET /api/getUsers")
    links = {span.span_id: [link.span_id for link in span.links] for span in requests}
    assert links.pop(leader) == []
    assert list(links.values()) == [[leader], [leader]]


async def test_breaker_changes_are_span_events_of_the_request(
    start: Start, mock: MockUpstream, received: Received
):
    mock.faults.set("addEvent", Fault(status=500))
    async with start(app=TRACED, breaker_failures=1) as client:
        await client.post("/api/addEvent", json=NEW_EVENT)
        await client.post("/api/addEvent", json=NEW_EVENT)

    opened, refused = received.named("POST /api/addEvent")
    assert [event.name for event in opened.events] == ["circuit_breaker.state_changed"]
    assert (
        members(opened.events[0]).items()
        >= {
            "circuit_breaker.name": "addEvent",
            "circuit_breaker.old_state": "closed",
            "circuit_breaker.new_state": "open",
        }.items()
    )
    assert [event.name for event in refused.events] == ["circuit_breaker.rejected"]
    assert members(refused.events[0])["circuit_breaker.state"] == "open"
    assert 9 < members(refused.events[0])["circuit_breaker.retry_after"] <= 10
    assert members(opened)["error.type"] == "UpstreamFailed"
    assert members(refused)["error.type"] == "CircuitOpen"
    assert {opened.status.code, refused.status.code} == {Status.STATUS_CODE_ERROR}
    assert len(received.named("POST /addEvent")) == 1


async def test_a_call_without_an_answer_says_what_went_wrong(
    start: Start, mock: MockUpstream, received: Received
):
    mock.faults.set("addEvent", Fault(mode="hang"))
    async with start(app=TRACED, upstream_timeout=0.1) as client:
        assert (await client.post("/api/addEvent", json=NEW_EVENT)).status == 504

    attempt = members(received.one("POST /addEvent"))
    assert attempt["error.type"] == "UpstreamTimeout"
    assert "http.response.status_code" not in attempt


async def test_a_call_without_waiting_callers_is_not_an_error(
    start: Start, mock: MockUpstream, received: Received
):
    mock.event_delay = 5
    mock.faults.set("getEventById", Fault(status=404, first_n=1))
    async with start(app=TRACED) as client:
        assert (await client.get("/api/getEventsByUserId/1")).status == 502

    refused, cancelled = received.named("GET /getEventById/{id}")
    assert members(refused)["error.type"] == "404"
    assert refused.status.code == Status.STATUS_CODE_ERROR
    assert [event.name for event in cancelled.events] == ["cancelled"]
    assert cancelled.status.code == Status.STATUS_CODE_UNSET


async def test_unknown_paths_hosts_and_methods_create_no_span_names(
    start: Start, received: Received
):
    async with start(app=TRACED) as client:
        await client.get("/nowhere/1", headers={"Host": "[broken"})
        await client.request("BREW", "/api/getUsers")
        await client.get("/api/getEventsByUserId/bad%20id")

    nowhere = received.one("GET")
    assert "http.route" not in members(nowhere)
    assert "server.address" not in members(nowhere)
    brew = members(received.one("HTTP /api/getUsers"))
    assert brew["http.request.method"] == "_OTHER"
    assert brew["http.request.method_original"] == "BREW"
    mistake = received.one(f"GET {BY_ID}")
    assert members(mistake)["http.response.status_code"] == 400
    assert mistake.status.code == Status.STATUS_CODE_UNSET


async def test_a_bug_leaves_its_exception_in_the_trace(start: Start, received: Received):
    class Broken:
        async def users(self):
            raise RuntimeError("a bug")

        user = events = event = add_event = users

    async with start(app=TRACED | {"source": Broken()}) as client:
        assert (await client.get("/api/getUsers")).status == 500

    span = received.one("GET /api/getUsers")
    assert [event.name for event in span.events] == ["exception"]
    assert members(span)["error.type"] == "RuntimeError"


async def test_the_variables_switch_it_on_and_the_log_shows_the_traces_id(
    mock: MockUpstream, received: Received
):
    async with serve(mock.url, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint) as server:
        await ask(server.url)
        line = await server.line("request")

    assert received.one("GET /api/getUsers").trace_id.hex() == line["trace_id"]
    assert received.resource["service.name"] == "event-service"
    assert received.resource["service.version"]


async def test_the_services_name_is_the_operators_to_choose(mock: MockUpstream, received: Received):
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
        "OTEL_SERVICE_NAME": "calendar",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    async with serve(mock.url, **variables) as server:
        await ask(server.url)
        line = await server.line("request")
    assert received.spans == []
    assert len(line["trace_id"]) == 32

    variables["OTEL_TRACES_SAMPLER"] = "always_on"
    async with serve(mock.url, **variables) as server:
        await ask(server.url)
    assert received.resource["service.name"] == "calendar"


async def test_a_dead_collector_does_not_keep_the_service_from_ending(mock: MockUpstream):
    async with serve(mock.url, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as server:
        await ask(server.url)
        async with asyncio.timeout(15):
            await server.stop()
    # Where the machine is slow, the exporter's thread still has a word to say after it.
    assert "service stopped" in [line["event"] for line in server.lines]


async def ask(url: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET /api/getUsers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def run(*arguments: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=os.environ | environment, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_switched_off_nothing_of_it_is_loaded():
    program = (
        "import sys; from event_service.app import Worker, from_environment;"
        "from_environment(Worker());"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert await run("-c", program) == (0, "[]\n")


async def test_without_its_packages_the_service_says_what_to_install(tmp_path: Path):
    (tmp_path / "opentelemetry.py").write_text("")
    code, output = await run(
        *("-m", "event_service", "check-config"),
        PYTHONPATH=str(tmp_path),
        OTEL_TRACES_EXPORTER="otlp",
    )
    assert code == 2
    assert "pip install 'event-service[otel]'" in output

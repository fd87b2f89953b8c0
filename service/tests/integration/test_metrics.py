import asyncio
import os
import re
import signal
import time
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from psutil import Process

from event_service.app import create_app
from event_service.errors import UserNotFound
from event_service.settings import Settings
from event_service.telemetry.cells import Cells
from event_service.telemetry.metrics import Metrics
from halfopen import CircuitBreaker
from mock_upstream import Fault, MockUpstream

from .conftest import Start
from .raw_http import connection
from .scraping import Scrape, parse, scrape
from .server_process import serve

pytestmark = pytest.mark.anyio

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
NEW_EVENT = {"userId": "1", "title": "Standup"}


async def test_everything_there_is_to_measure_is_named_from_the_start(start: Start):
    async with start() as client:
        text = await (await client.get("/metrics")).text()

    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert (
        kinds.items()
        >= {
            "http_requests_total": "counter",
            "http_request_duration_seconds": "histogram",
            "http_requests_in_flight": "gauge",
            "upstream_requests_total": "counter",
            "upstream_request_duration_seconds": "histogram",
            "upstream_retries_total": "counter",
            "single_flight_shared_total": "counter",
            "cache_hits_total": "counter",
            "circuit_breaker_state": "gauge",
            "circuit_breaker_transitions_total": "counter",
            "circuit_breaker_calls_total": "counter",
            "rate_limited_total": "counter",
            "load_shed_total": "counter",
            "event_service_build_info": "gauge",
            "python_info": "gauge",
            "process_resident_memory_bytes": "gauge",
            "process_cpu_seconds_total": "counter",
            "process_open_fds": "gauge",
            "process_start_time_seconds": "gauge",
        }.items()
    )
    assert set(re.findall(r"^# HELP (\S+) .+$", text, re.MULTILINE)) == set(kinds)


async def test_requests_are_counted_by_method_route_template_and_status(start: Start):
    async with start() as client:
        for path in ("1", "2", "nobody", "bad%20id"):
            await client.get(f"/api/getEventsByUserId/{path}")
        await client.get("/nowhere")
        await client.post("/api/getUsers")
        await client.request("BREW", "/api/getUsers")
        found = await scrape(client)

    route = "/api/getEventsByUserId/{id}"
    assert found.by("http_requests_total", "status", route=route) == {"200": 2, "404": 1, "400": 1}
    labels = {"method": "GET", "route": route}
    assert found.of("http_request_duration_seconds_count", **labels) == 4
    assert found.of("http_request_duration_seconds_bucket", **labels, le="10.0") == 4
    assert 0 < found.of("http_request_duration_seconds_sum", **labels) < 10
    assert found.of("http_requests_total", method="GET", route="unmatched", status="404") == 1
    refused = {"route": "/api/getUsers", "status": "405"}
    assert found.by("http_requests_total", "method", **refused) == {"POST": 1, "OTHER": 1}


async def test_a_head_that_is_refused_counts_for_the_route_of_its_path(start: Start):
    async with start() as client:
        for path in (b"/api/getEventsByUserId/1", b"/nowhere"):
            async with connection(client) as raw:
                await raw.send(b"GET %b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" % path)
                assert (await raw.answer()).status == 400
        found = await scrape(client)

    assert found.by("http_requests_total", "route", status="400") == {
        "/api/getEventsByUserId/{id}": 1,
        "unmatched": 1,
    }


async def test_a_stream_counts_as_a_request_but_how_long_somebody_watched_is_no_duration(
    start: Start,
):
    token = {"Authorization": "Bearer open-sesame-to-operators"}
    stream = {"method": "GET", "route": "/dashboard/stream"}
    async with start(env="production", ops_token="open-sesame-to-operators") as client:
        assert (await client.get("/dashboard/stream")).status == 401
        async with client.get("/dashboard/stream", headers=token) as response:
            assert await response.content.readline() == b"retry: 1000\n"
        async with asyncio.timeout(5):
            while True:
                found = await scrape(client, headers=token)
                counts = found.by("http_requests_total", "status", **stream)
                if "200" in counts:
                    break

    assert counts == {"401": 1, "200": 1}
    assert found.of("http_request_duration_seconds_count", **stream) == 1
    assert found.of("http_requests_in_flight") == 1


async def test_the_scrape_itself_is_in_flight_and_nothing_stays_so(start: Start):
    async with start() as client:
        await client.get("/api/getUsers")
        first, second = await scrape(client), await scrape(client)

    assert first.of("http_requests_in_flight") == second.of("http_requests_in_flight") == 1


@pytest.mark.slow
async def test_ten_thousand_ids_paths_and_methods_add_no_series():
    app = create_app(Settings(env="testing"), source=NoUsers())
    await call(app, "GET", "/api/getEventsByUserId/1")
    await call(app, "BREW", "/api/getEventsByUserId/1")
    await call(app, "GET", "/paths/1")
    await call(app, "GET", "/metrics")
    before = parse(await call(app, "GET", "/metrics"))

    for number in range(10_000):
        await call(app, "GET", f"/api/getEventsByUserId/user-{number}")
        if number % 10 == 0:
            await call(app, f"BREW{number}", f"/api/getEventsByUserId/user-{number}")
            await call(app, "GET", f"/paths/{number}")

    after = parse(await call(app, "GET", "/metrics"))
    assert set(after) == set(before)
    route = "/api/getEventsByUserId/{id}"
    assert after.of("http_requests_total", method="GET", route=route, status="404") == 10_001


@pytest.mark.slow
async def test_ten_thousand_refused_ids_and_paths_add_no_series():
    app = create_app(Settings(env="testing", rate_limit="1/hour"), source=NoUsers())
    for path in ("/api/getUsers", "/api/getEventsByUserId/1", "/api/paths/1", "/metrics"):
        await call(app, "GET", path)
    before = parse(await call(app, "GET", "/metrics"))

    for number in range(5_000):
        await call(app, "GET", f"/api/getEventsByUserId/user-{number}")
        await call(app, "GET", f"/api/paths/{number}")

    after = parse(await call(app, "GET", "/metrics"))
    assert set(after) == set(before)
    refused = after.by("http_requests_total", "route", status="429")
    assert refused == {"/api/getEventsByUserId/{id}": 5_001, "unmatched": 5_001}


async def test_upstream_attempts_are_counted_by_outcome(start: Start, mock: MockUpstream):
    mock.faults.set("getEventById", Fault(status=500, first_n=2))
    async with start() as client:
        response = await client.get("/api/getEventsByUserId/3")
        assert response.status == 200
        await client.get("/api/getEventsByUserId/nobody")
        found = await scrape(client)

    outcomes = "upstream_requests_total", "outcome"
    assert found.by(*outcomes, operation="getEventById") == {"ok": 1, "failed": 2}
    assert found.by(*outcomes, operation="getUserById") == {"ok": 1, "not_found": 1}
    assert found.of("upstream_request_duration_seconds_count", operation="getEventById") == 3
    assert found.of("upstream_retries_total", operation="getEventById") == 2
    assert found.of("upstream_retries_total", operation="getUserById") == 0
    calls = found.by("circuit_breaker_calls_total", "outcome", breaker="getUserById")
    assert calls == {"success": 2, "failure": 0, "ignored": 0, "rejected": 0}


async def test_calls_saved_by_single_flight_are_counted(start: Start, mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.2))
    async with start() as client:
        await asyncio.gather(*(client.get("/api/getUsers") for _ in range(5)))
        found = await scrape(client)

    assert found.of("single_flight_shared_total", operation="getUsers") == 4
    assert found.of("upstream_requests_total", operation="getUsers", outcome="ok") == 1


async def test_a_breaker_shows_its_state_its_transitions_and_its_verdicts(
    start: Start, mock: MockUpstream
):
    now = [1000.0]
    mock.faults.set("addEvent", Fault(status=500))
    async with start(app={"clock": lambda: now[0]}) as client:
        before = await scrape(client)
        for _ in range(5):
            await client.post("/api/addEvent", json=NEW_EVENT)
        opened = await scrape(client)
        mock.faults.clear("addEvent")
        now[0] += 10
        await client.post("/api/addEvent", json=NEW_EVENT)
        closed = await scrape(client)

    state = "circuit_breaker_state", "state"
    zeros = dict.fromkeys(("closed", "open", "half_open", "isolated"), 0)
    assert before.by(*state, breaker="addEvent") == zeros | {"closed": 1}
    assert opened.by(*state, breaker="addEvent") == zeros | {"open": 1}
    assert closed.by(*state, breaker="addEvent") == zeros | {"closed": 1}
    assert opened.by(*state, breaker="getUsers") == zeros | {"closed": 1}

    calls = "circuit_breaker_calls_total", "outcome"
    none = dict.fromkeys(("success", "failure", "ignored", "rejected"), 0)
    assert before.by(*calls, breaker="addEvent") == none
    assert opened.by(*calls, breaker="addEvent") == none | {"failure": 3, "rejected": 2}
    assert closed.by(*calls, breaker="addEvent")["success"] == 1

    def transitions(found, old, new):
        pair = {"from_state": old, "to_state": new}
        return found.of("circuit_breaker_transitions_total", breaker="addEvent", **pair)

    assert transitions(before, "closed", "open") == 0
    assert transitions(opened, "closed", "open") == 1
    assert transitions(closed, "open", "half_open") == 1
    assert transitions(closed, "half_open", "closed") == 1
    assert transitions(closed, "half_open", "open") == 0


async def test_manual_changes_of_a_breaker_are_seen_too():
    metrics = Metrics(Cells(), version="1")
    breaker = CircuitBreaker("addEvent")
    metrics.watch(breaker)
    breaker.isolate()
    found = parse(metrics.expose("")[0].decode())

    assert found.by("circuit_breaker_state", "state", breaker="addEvent")["isolated"] == 1
    pair = {"from_state": "closed", "to_state": "isolated"}
    assert found.of("circuit_breaker_transitions_total", breaker="addEvent", **pair) == 1


async def test_requests_refused_for_their_number_are_counted(start: Start, mock: MockUpstream):
    async with start(rate_limit="2/hour") as client:
        for _ in range(5):
            await client.get("/api/getUsers")
        limited = await scrape(client)
    mock.faults.set("getUsers", Fault(delay=0.3))
    async with start(max_in_flight=1) as client:
        await asyncio.gather(*(client.get("/api/getUsers") for _ in range(4)))
        shed = await scrape(client)

    assert limited.of("rate_limited_total") == 3
    assert limited.of("load_shed_total") == 0
    assert shed.of("load_shed_total") == 3
    assert shed.of("rate_limited_total") == 0


async def test_calls_saved_by_the_cache_are_counted(start: Start):
    async with start(cache_ttl=60) as client:
        for _ in range(3):
            await client.get("/api/getUsers")
        found = await scrape(client)

    assert found.of("cache_hits_total", operation="getUsers") == 2


async def test_openmetrics_carries_the_trace_ids_of_requests(start: Start):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    traceparent = f"00-{trace_id}-00f067aa0ba902b7-01"
    async with start() as client:
        await client.get("/api/getUsers", headers={"traceparent": traceparent})
        plain = await client.get("/metrics")
        response = await client.get("/metrics", headers=OPENMETRICS)
        text = await response.text()

    assert plain.content_type == "text/plain"
    assert trace_id not in await plain.text()
    assert response.content_type == "application/openmetrics-text"
    exemplars = [
        sample.exemplar
        for family in text_string_to_metric_families(text)
        if family.name == "http_request_duration_seconds"
        for sample in family.samples
        if sample.labels.get("route") == "/api/getUsers" and sample.exemplar
    ]
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": trace_id}]
    assert 0 < exemplars[0].value < 10
    assert float(exemplars[0].timestamp) == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"},
        {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02"},
        {"traceparent": "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    ],
    ids=["no trace", "not sampled", "an unknown flag", "a version that is none"],
)
async def test_an_unrecorded_trace_is_not_an_exemplar(start: Start, headers: dict[str, str]):
    async with start() as client:
        await client.get("/api/getUsers", headers=headers)
        response = await client.get("/metrics", headers=OPENMETRICS)
        text = await response.text()

    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    assert samples
    assert not [sample for sample in samples if sample.exemplar]


@pytest.mark.slow
async def test_two_workers_answer_with_the_counts_of_both(mock: MockUpstream):
    async with serve(mock.url, workers="2") as server:
        await server.started()
        await server.started()
        answered = await ask(server.url, 60)
        found = await scrape_once(server.url)
        workers = Process(server.process.pid).children(recursive=True)
        resident = [worker.memory_info().rss for worker in workers]

    route = {"method": "GET", "route": "/api/getUsers"}
    assert found.of("http_requests_total", **route, status="200") == answered
    assert found.of("http_request_duration_seconds_count", **route) == answered
    calls = found.of("circuit_breaker_calls_total", breaker="getUsers", outcome="success")
    assert calls == found.of("upstream_requests_total", operation="getUsers", outcome="ok")
    states = found.by("circuit_breaker_state", "state", breaker="getUsers")
    assert states == {"closed": 1, "open": 0, "half_open": 0, "isolated": 0}
    assert found.of("http_requests_in_flight") == 1
    assert max(resident) * 1.5 < found.of("process_resident_memory_bytes") < sum(resident) * 1.2


@pytest.mark.slow
async def test_totals_outlive_the_worker_that_counted_them(mock: MockUpstream):
    async with serve(mock.url, workers="2") as server:
        first = await server.started()
        await server.started()
        answered = await ask(server.url, 60)
        os.kill(first, signal.SIGKILL)
        await server.started()
        answered += await ask(server.url, 10)
        found = await scrape_once(server.url)

    route = {"method": "GET", "route": "/api/getUsers"}
    # A worker may be killed between a reply and its count.
    counted = found.of("http_requests_total", **route, status="200")
    assert answered - 1 <= counted <= answered
    assert found.of("http_requests_in_flight") == 1


@pytest.mark.slow
async def test_workers_need_no_files(mock: MockUpstream, tmp_path: Path):
    """What they share is memory, so no cleaner, no full disk and no lost folder takes it."""
    async with serve(mock.url, workers="2", TMPDIR=str(tmp_path)) as server:
        await server.started()
        await server.started()
        await ask(server.url, 4)
        await scrape_once(server.url)
        assert not any_in(tmp_path)


def any_in(folder: Path) -> bool:
    return any(folder.iterdir())


async def ask(url: str, times: int) -> int:
    """Ask for the users over so many connections, one after the other."""
    for _ in range(times):
        async with aiohttp.ClientSession(url) as client:
            assert (await client.get("/api/getUsers")).status == 200
    return times


async def scrape_once(url: str) -> Scrape:
    async with aiohttp.ClientSession(url) as client:
        return await scrape(client)


class NoUsers:
    """A source of events that knows nobody."""

    async def user(self, user_id):
        raise UserNotFound(user_id)

    users = events = event = add_event = user


async def call(app, method, path):
    """The body of the answer of an ASGI app, without a server's cost."""
    body = b""

    async def receive():
        raise AssertionError("nothing here reads the request")

    async def send(message):
        nonlocal body
        body += message.get("body", b"")

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return body.decode()

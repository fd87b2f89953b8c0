import asyncio
import json

import aiohttp
import pytest

from mock_upstream import Fault, MockUpstream

from .server_process import ServerProcess, serve

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


async def get(server: ServerProcess, path: str, **headers: str) -> int:
    async with aiohttp.ClientSession(server.url) as client:
        return (await client.get(path, headers=headers)).status


async def set_level(server: ServerProcess, level: str, **headers: str) -> int:
    async with aiohttp.ClientSession(server.url, headers=headers) as client:
        return (await client.put("/ops/log-level", json={"level": level})).status


async def test_each_request_is_one_line_that_leads_to_its_ids(mock: MockUpstream):
    async with serve(mock.url) as server:
        headers = {"X-Request-ID": "from-the-caller", "traceparent": TRACEPARENT}
        await get(server, "/api/getEventsByUserId/1?partial=false", **headers)
        line = await server.line("request")

    assert line.pop("timestamp").endswith("Z")
    assert 0 < line.pop("duration_ms") < 10_000
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "from-the-caller",
        "trace_id": TRACE_ID,
        "method": "GET",
        "route": "/api/getEventsByUserId/{id}",
        "path": "/api/getEventsByUserId/1",
        "status": 200,
        "client": "127.0.0.1",
        "upstream_calls": 3,
        "worker": 1,
    }


async def test_a_refused_request_is_told_with_the_route_that_it_was_for(mock: MockUpstream):
    async with serve(mock.url, rate_limit="1/hour") as server:
        await get(server, "/api/getUsers")
        assert (await server.line("request"))["status"] == 200
        await get(server, "/api/getEventsByUserId/1")
        line = await server.line("request")

    assert (line["status"], line["error"]) == (429, "RateLimited")
    assert line["route"] == "/api/getEventsByUserId/{id}"


async def test_a_slow_request_is_a_warning(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.05))
    async with serve(mock.url, slow_request="0.04") as server:
        await get(server, "/api/getUsers")
        line = await server.line("request")

    assert (line["level"], line["slow"]) == ("warning", True)


async def test_an_opening_breaker_and_failed_retries_are_logged_with_their_request(
    mock: MockUpstream,
):
    mock.faults.set("getUsers", Fault(status=500))
    async with serve(mock.url, retry_attempts="2") as server:
        await get(server, "/api/getUsers", **{"X-Request-ID": "first"})
        gave_up = await server.line("upstream retries given up")
        for _ in range(10):
            await get(server, "/api/getUsers", **{"X-Request-ID": "further"})
        opened = await server.line("breaker state changed")

    assert gave_up["request_id"] == "first"
    assert (gave_up["operation"], gave_up["attempt"]) == ("getUsers", 2)
    assert opened["request_id"] == "further"
    assert len(opened["trace_id"]) == 32
    assert (opened["breaker"], opened["new"]) == ("getUsers", "open")
    assert opened["failures_in_window"] == 20
    assert opened["next_try_s"] == pytest.approx(10, abs=1)


async def test_the_first_line_shows_the_settings_and_no_line_a_secret(mock: MockUpstream):
    secrets = {
        "upstream_headers": json.dumps({"authorization": "Bearer sesame-1"}),
        "ops_token": "sesame-2-and-long-enough-to-be-one",
    }
    async with serve(mock.url, **secrets, log_level="debug") as server:
        await get(server, "/metrics", Authorization=f"Bearer {secrets['ops_token']}")
        await get(server, "/api/getUsers", Cookie="session=sesame-3")
        await set_level(server, "info", Authorization=f"Bearer {secrets['ops_token']}")

    assert server.lines[0]["event"] == "service started"
    settings = server.lines[0]["settings"]
    assert settings["EVENT_SERVICE_UPSTREAM_URL"] == mock.url
    assert settings["EVENT_SERVICE_OPS_TOKEN"] == "**********"
    assert settings["EVENT_SERVICE_UPSTREAM_HEADERS"] == {"authorization": "**********"}
    assert "sesame" not in json.dumps(server.lines)


async def test_no_line_is_lost_when_the_service_is_told_to_end(mock: MockUpstream):
    async with serve(mock.url) as server:
        async with aiohttp.ClientSession(server.url) as client:
            await asyncio.gather(*(client.get("/api/getUsers") for _ in range(300)))
        await server.stop()

    assert [line["event"] for line in server.lines].count("request") == 300
    assert server.lines[-1]["event"] == "service stopped"


RAW = [
    b'GET /%0A%1B[2J{"level":"error"} HTTP/1.1\r\nHost: x\r\nUser-Agent: \xc2\x9b2J\r\n\r\n',
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: \xc2\x9b2J\r\ntraceparent: \xff\r\n\r\n",
    b"GET /a\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\x9b2J\xc2\x9b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW\x1b / HTTP/1.1\r\nHost: x\r\n\r\n",
]
REFUSED_UNHEARD = 3


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_raw_bytes_of_a_caller_reach_no_terminal(mock: MockUpstream, log_format: str):
    async with serve(mock.url, log_format=log_format) as server:
        for request in RAW:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            await asyncio.wait_for(reader.read(1), 5)
            writer.close()
            await writer.wait_closed()
        output = await server.rest()

    lines = output.decode().removesuffix("\n").split("\n")
    ours = len(["service started", "service stopped"])
    assert len(lines) == ours + len(RAW) - REFUSED_UNHEARD
    assert all(line.isprintable() for line in lines)


async def test_the_level_changes_without_a_restart(mock: MockUpstream):
    async with serve(mock.url) as server:
        assert await set_level(server, "loud") == 422
        assert await set_level(server, "debug", **{"X-Request-ID": "who"}) == 200
        changed = await server.line("log level changed")
        mock.faults.set("getEvents", Fault(status=500, first_n=1))
        await get(server, "/api/getEvents")
        detail = await server.line("upstream retry")
        await set_level(server, "warning")
        await server.line("log level changed", new="warning")
        await get(server, "/api/getUsers")
        await server.stop()

    assert (changed["old"], changed["new"], changed["request_id"]) == ("info", "debug", "who")
    assert detail["level"] == "debug"
    routes = [line.get("route") for line in server.lines]
    assert "/api/getUsers" not in routes


async def test_every_worker_follows_a_change_of_the_level(mock: MockUpstream):
    async with serve(mock.url, workers="2") as server:
        await server.started()
        await server.started()
        assert await set_level(server, "debug") == 200
        await server.line("log level changed")
        await server.line("log level changed")

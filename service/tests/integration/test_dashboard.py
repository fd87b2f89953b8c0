import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import structlog

from event_service.dashboard.operators import COOKIE
from event_service.dashboard.stream import MAX_WATCHERS
from mock_upstream import MockUpstream

from ..frame_changes import applied  # noqa: TID252  of all the service's tests
from .conftest import Start
from .server_process import serve

pytestmark = pytest.mark.anyio

TOKEN = "open-sesame-to-operators"
PRODUCTION: dict[str, Any] = {"env": "production", "ops_token": TOKEN}
BEARER = {"authorization": f"Bearer {TOKEN}"}
CONTROL = {"x-dashboard-control": "1"}
LATER = {"prefer": "respond-async"}
TRIP = "/dashboard/controls/breakers/addEvent/trip"


async def frames(response: aiohttp.ClientResponse, count: int = 1) -> list[dict[str, Any]]:
    """So many of the first frames of a stream."""
    found: list[dict[str, Any]] = []
    changes = False
    while len(found) < count:
        line = await response.content.readline()
        assert line, "the stream ended"
        if line.startswith(b"event: "):
            changes = line == b"event: change\n"
        elif line.startswith(b"data: "):
            told = json.loads(line.removeprefix(b"data: "))
            found.append(applied(found[-1], told) if changes else told)
            changes = False
    return found


async def change(response: aiohttp.ClientResponse) -> tuple[int, dict[str, Any]]:
    """The next change, and how many bytes it takes."""
    event = b""
    while not event.strip():
        event = await response.content.readuntil(b"\n\n")
    _, name, data = event.split(b"\n")[-5:-2]
    assert name == b"event: change"
    return len(event), json.loads(data.removeprefix(b"data: "))


def cpu_of(process: psutil.Process) -> float:
    """Seconds of processor time that it and its children have taken."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def until_let_in(client: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    """A watcher that left is noticed a moment later."""
    async with asyncio.timeout(5):
        while True:
            response = await client.get(url)
            if response.status == 200:
                return response


async def state_of(client: aiohttp.ClientSession, breaker: str) -> str:
    state: str = (await (await client.get("/readyz")).json())["breakers"][breaker]
    return state


class TestPage:
    async def test_the_page_and_all_that_it_names_come_from_the_service_itself(self, start: Start):
        async with start() as client:
            page = await client.get("/dashboard")
            html = await page.text()
            addresses = re.findall(r'<(?:link|script)[^>]* (?:href|src)="([^"]*)"', html)
            assets = {address: await client.get(address) for address in addresses}
            imported = {
                f"{address.rpartition('/')[0]}/{name}"
                for address, asset in assets.items()
                for name in re.findall(r'from "\./([^"]+)"', await asset.text())
            }
            statuses = {name: (await client.get(name)).status for name in imported}

        assert page.content_type == "text/html"
        assert "{{" not in html
        assert len(assets) >= 4
        assert len(imported) >= 6
        assert {asset.status for asset in assets.values()} == set(statuses.values()) == {200}
        assert all(address.startswith("/dashboard/assets/") for address in addresses)
        assert re.findall(r'<a [^>]*href="([^"]*)"', html) == ["#content", "/docs", "/metrics"]
        assert {asset.headers["cache-control"] for asset in assets.values()} == {
            "public, max-age=31536000, immutable"
        }

    async def test_the_page_knows_where_run_book_grafana_and_traces_are(self, start: Start):
        places = {
            "runbook_url": "https://docs.example/runbook?a=1&b=2",
            "grafana_url": "https://grafana.example/d/1",
            "trace_url": "https://jaeger.example/trace/{trace_id}",
        }
        async with start(**places) as client:
            html = await (await client.get("/dashboard")).text()

        assert 'data-runbook="https://docs.example/runbook?a=1&amp;b=2"' in html
        assert 'data-grafana="https://grafana.example/d/1"' in html
        assert 'data-trace="https://jaeger.example/trace/{trace_id}"' in html

    async def test_the_service_has_a_run_book_with_a_section_for_each_sentence(self, start: Start):
        sections: set[str] = set()
        for name in ("concerns.js", "sentence.js"):
            code = (files("event_service.dashboard") / "assets" / name).read_text()
            sections |= set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', code))
        async with start() as client:
            page = await client.get("/dashboard")
            runbook = await client.get("/dashboard/runbook")
            html = await runbook.text()
            targets = re.findall(r'href="([^"#]+)', html)
            found = {target: (await client.get(target)).status for target in targets}
        async with start(**PRODUCTION) as client:
            stranger = await client.get("/dashboard/runbook")

        assert 'data-runbook="/dashboard/runbook"' in await page.text()
        sections.remove("half-open")
        assert len(sections) >= 5
        assert sections <= set(re.findall(r'<h2 id="([^"]+)"', html))
        assert set(found.values()) == {200}
        assert (runbook.status, stranger.status) == (200, 401)
        assert "Sign in" in await stranger.text()

    async def test_the_page_allows_nothing_inline_and_no_other_origin(self, start: Start):
        async with start() as client:
            page = await client.get("/dashboard")
            html = await page.text()

        policy = page.headers.getall("content-security-policy")
        assert len(policy) == 1
        assert "default-src 'none'" in policy[0]
        assert "unsafe" not in policy[0]
        assert "frame-ancestors 'none'" in policy[0]
        assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", html)

    @pytest.mark.parametrize("name", ["index.html", "..%2Fapp.py", "nothing.js"])
    async def test_only_assets_are_served_as_assets(self, start: Start, name: str):
        async with start() as client:
            html = await (await client.get("/dashboard")).text()
            folder = re.findall(r'href="(/dashboard/assets/[^/]+)/', html)[0]
            response = await client.get(f"{folder}/{name}")

        assert response.status == 404


class TestStream:
    async def test_a_frame_comes_at_once_and_another_each_second(self, start: Start):
        async with start() as client, client.get("/dashboard/stream") as stream:
            head = await stream.content.readline()
            began = time.monotonic()
            first, second, third = await frames(stream, 3)
            took = time.monotonic() - began

        assert stream.content_type == "text/event-stream"
        assert head == b"retry: 1000\n"
        assert [first["number"], second["number"], third["number"]] == [1, 2, 3]
        assert [breaker["name"] for breaker in first["breakers"]] == [
            "addEvent",
            "getUsers",
            "getUserById",
            "getEvents",
            "getEventById",
        ]
        assert 0.5 < took < 4

    @pytest.mark.slow
    async def test_requests_show_in_the_next_frames(self, start: Start, mock: MockUpstream):
        async with start() as client, client.get("/dashboard/stream") as stream:
            await client.get("/api/getUsers")
            await client.get("/api/getEventsByUserId/nobody", headers={"x-request-id": "mine"})
            frame = (await frames(stream, 3))[-1]

        counts = {each["route"]: each["counts"] for each in frame["endpoints"]}
        assert counts["/api/getUsers"]["ok"] == 1
        assert counts["/api/getEventsByUserId/{id}"]["client"] == 1
        operations = {each["name"]: each for each in frame["upstream"]["operations"]}
        assert operations["getUsers"]["latency"]["p50"] > 0
        assert frame["upstream"]["limit"] == 1024

    async def test_what_was_refused_shows_for_the_endpoint_that_it_was_for(self, start: Start):
        async with start(rate_limit="1/hour", cors_origins=["*"]) as client:
            for path in ("getUsers", "getUsers", "getEventsByUserId/7", "nowhere"):
                await client.get(f"/api/{path}")
            preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
            await client.options("/dashboard/session", headers=preflight)
            async with client.get("/dashboard/stream") as stream:
                frame = (await frames(stream, 2))[-1]

        counts = {each["route"]: each["counts"] for each in frame["endpoints"]}
        assert counts["/api/getUsers"]["limited"] == 1
        assert counts["/api/getEventsByUserId/{id}"]["limited"] == 1
        assert counts["other paths"]["limited"] == sum(counts["other paths"].values()) == 1

    @pytest.mark.slow
    async def test_all_watchers_get_the_same_frame(self, start: Start):
        async with (
            start() as client,
            client.get("/dashboard/stream") as one,
            client.get("/dashboard/stream") as other,
        ):
            seen = {frame["number"]: frame for frame in await frames(one, 3)}
            also = {frame["number"]: frame for frame in await frames(other, 3)}

        common = seen.keys() & also.keys()
        assert common
        assert all(seen[number] == also[number] for number in common)

    async def test_a_hundred_may_watch_and_one_more_is_told_to_come_back(self, start: Start):
        async with start() as service, AsyncExitStack() as watching:
            client = await watching.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            )
            url = service._build_url("/dashboard/stream")
            for _ in range(MAX_WATCHERS - 1):
                await watching.enter_async_context(client.get(url))
            async with client.get(url) as last:
                refused = await client.get(url)
                problem = await refused.json()
            again = await until_let_in(client, str(url))
            await frames(again)
            again.close()

        assert last.status == 200
        assert refused.status == 503
        assert problem["type"] == "/problems/overloaded"
        assert refused.headers["retry-after"] == "5"

    @pytest.mark.slow
    async def test_a_hundred_who_watch_a_quiet_service_cost_hardly_anything(
        self, mock: MockUpstream
    ):
        async with (
            serve(mock.url) as server,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
            AsyncExitStack() as watching,
        ):
            await client.get(f"{server.url}/api/getUsers")
            url = f"{server.url}/dashboard/stream"
            streams = [
                await watching.enter_async_context(client.get(url)) for _ in range(MAX_WATCHERS)
            ]
            for stream in streams:
                await frames(stream)
            process = psutil.Process(server.process.pid)
            before, began = cpu_of(process), time.monotonic()
            changes = [[await change(stream) for stream in streams] for _ in range(3)]
            used, took = cpu_of(process) - before, time.monotonic() - began

        sent = sum(size for second in changes for size, _ in second)
        assert sent / MAX_WATCHERS / took < 3_000
        # Of a core; a tenth of that is usual.
        assert used / took < 0.05
        # What nothing happens to is left out; the whole frame has 20 times as much.
        assert changes[-1][0][0] < 1_000

    @pytest.mark.slow
    async def test_an_open_dashboard_does_not_hold_up_a_stop(self, mock: MockUpstream):
        async with serve(mock.url) as server, aiohttp.ClientSession(server.url) as client:
            async with client.get("/dashboard/stream") as stream:
                await frames(stream)
                began = time.monotonic()
                server.process.terminate()
                rest = await stream.content.read()
                stream_ended = time.monotonic() - began
            code = await server.process.wait()
            stopped = time.monotonic() - began

        assert rest.endswith(b"\n")
        assert code == 0
        # Without being told, the stream would last until the worker is killed, after 6 seconds.
        assert stream_ended < 3
        assert stopped < 4


class TestAccess:
    async def test_production_without_a_token_has_no_dashboard(self, start: Start):
        async with start(env="production") as client:
            paths = ("/dashboard", "/dashboard/stream", "/dashboard/session")
            assert [(await client.get(path)).status for path in paths] == [404, 404, 404]

    async def test_production_asks_to_sign_in(self, start: Start):
        async with start(**PRODUCTION) as client:
            page = await client.get("/dashboard")
            stream = await client.get("/dashboard/stream")

        assert (page.status, stream.status) == (401, 401)
        assert page.headers["www-authenticate"] == "Bearer"
        assert "Sign in" in await page.text()
        assert "circuits" not in await page.text()

    async def test_the_bearer_token_opens_page_and_stream(self, start: Start):
        async with start(**PRODUCTION) as client:
            page = await client.get("/dashboard", headers=BEARER)
            async with client.get("/dashboard/stream", headers=BEARER) as stream:
                await frames(stream)

        assert page.status == 200

    async def test_a_browser_signs_in_with_the_token_and_out_again(self, start: Start):
        async with start(**PRODUCTION) as client:
            # aiohttp keeps no cookies of bare addresses; this test carries them itself.
            signed_in = await client.post("/dashboard/session", json={"token": TOKEN})
            session = signed_in.cookies[COOKIE]
            cookies = {COOKIE: session.value}
            inside = await client.get("/dashboard", cookies=cookies)
            signed_out = await client.delete("/dashboard/session", cookies=cookies)

        assert signed_in.status == 200
        assert session["httponly"]
        assert session["samesite"] == "Strict"
        assert TOKEN not in session.value
        assert inside.status == 200
        assert signed_out.cookies[COOKIE]["max-age"] == "0"

    async def test_the_session_is_for_https_alone_where_the_browser_speaks_it(self, start: Start):
        async def secure(**settings: object) -> bool:
            async with start(**PRODUCTION, **settings) as client:
                signed_in = await client.post(
                    "/dashboard/session",
                    json={"token": TOKEN},
                    headers={"x-forwarded-proto": "https"},
                )
                return bool(signed_in.cookies[COOKIE]["secure"])

        assert await secure(trusted_proxies=["127.0.0.0/8"])
        # Anyone can send the header.
        assert not await secure()

    async def test_a_look_at_the_streams_head_leaves_no_watcher(self, start: Start):
        async with start() as client:
            for _ in range(101):
                async with client.head("/dashboard/stream") as response:
                    assert response.status == 200
            async with client.get("/dashboard/stream") as response:
                assert response.status == 200
                assert "no-transform" in response.headers["Cache-Control"]

    async def test_another_token_opens_nothing(self, start: Start):
        async with start(**PRODUCTION) as client:
            wrong = await client.post("/dashboard/session", json={"token": "guess"})
            forged = await client.get("/dashboard", cookies={COOKIE: "9999999999." + "0" * 64})

        assert wrong.status == 401
        assert COOKIE not in wrong.cookies
        assert forged.status == 401


class TestControls:
    async def test_a_breaker_is_tripped_isolated_released_and_reset(self, start: Start):
        states = []
        async with start() as client:
            for action in ("trip", "isolate", "isolate", "release", "trip", "reset"):
                path = f"/dashboard/controls/breakers/addEvent/{action}"
                response = await client.post(path, headers=CONTROL)
                assert response.status == 200
                states.append(await state_of(client, "addEvent"))

        # An isolation hides where the circuit stands; its release shows that again.
        assert states == ["open", "isolated", "isolated", "open", "open", "closed"]

    async def test_every_use_of_a_control_leaves_an_audit_line(self, start: Start):
        with structlog.testing.capture_logs() as lines:
            async with start() as client:
                await client.post(TRIP, headers=CONTROL)

        (line,) = [line for line in lines if line["event"] == "dashboard control used"]
        assert (line["action"], line["target"]) == ("trip", "addEvent")
        assert line["client"] == "127.0.0.1"

    async def test_production_has_no_controls_unless_they_are_enabled(self, start: Start):
        async with start(**PRODUCTION) as client:
            off = await client.post(TRIP, headers={**BEARER, **CONTROL})
            page = await (await client.get("/dashboard", headers=BEARER)).text()
        async with start(**PRODUCTION, dashboard_controls=True) as client:
            silent = await client.post(TRIP, headers={**BEARER, **CONTROL})
            on = await client.post(
                TRIP,
                headers={**BEARER, **CONTROL},
                json={"reason": "drill", "by": "Kim", "seconds": 60},
            )
            mock = await client.get("/dashboard/controls/mock", headers=BEARER)
            enabled = await (await client.get("/dashboard", headers=BEARER)).text()

        assert (off.status, silent.status, on.status, mock.status) == (404, 400, 200, 404)
        assert 'data-controls=""' in page
        assert 'data-controls="breakers"' in enabled

    async def test_a_wish_in_chunks_is_read_too(self, start: Start):
        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"seconds":'
            yield b'"soon"}'

        headers = {**CONTROL, "Content-Type": "application/json"}
        async with start() as client:
            response = await client.post(TRIP, data=chunks(), headers=headers)

        assert response.status == 422

    async def test_how_long_why_and_by_whom_go_into_the_log(self, start: Start):
        wish = {"seconds": 60, "reason": "the upstream asked for it", "by": "Kim"}
        with structlog.testing.capture_logs() as lines:
            async with start() as client:
                await client.post(TRIP, headers=CONTROL, json=wish)

        (line,) = [line for line in lines if line["event"] == "dashboard control used"]
        assert {name: line[name] for name in wish} == wish

    async def test_enabled_controls_need_the_token(self, start: Start):
        async with start(**PRODUCTION, dashboard_controls=True) as client:
            response = await client.post(TRIP, headers=CONTROL)

            assert response.status == 401
            assert await state_of(client, "addEvent") == "closed"

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {**CONTROL, "sec-fetch-site": "cross-site"},
            {**CONTROL, "sec-fetch-site": "same-site"},
            {**CONTROL, "origin": "https://evil.example"},
            {**CONTROL, "origin": "null"},
        ],
    )
    async def test_another_site_cannot_use_an_operators_session(
        self, start: Start, headers: dict[str, str]
    ):
        async with start(**PRODUCTION, dashboard_controls=True) as client:
            signed_in = await client.post("/dashboard/session", json={"token": TOKEN})
            cookies = {COOKIE: signed_in.cookies[COOKIE].value}
            response = await client.post(TRIP, headers=headers, cookies=cookies)

            assert response.status == 403
            assert await state_of(client, "addEvent") == "closed"

    async def test_reading_never_changes_anything(self, start: Start):
        async with start() as client:
            response = await client.get(TRIP, headers=CONTROL)

        assert response.status == 405

    @pytest.mark.parametrize("target", ["nobody/trip", "addEvent/explode"])
    async def test_there_is_no_control_of_what_is_not_there(self, start: Start, target: str):
        async with start() as client:
            response = await client.post(f"/dashboard/controls/breakers/{target}", headers=CONTROL)

        assert response.status == 404

    async def test_the_mocks_faults_are_set_seen_and_healed(self, start: Start, mock: MockUpstream):
        fault = {"delay": 0.0, "error_rate": 1.0, "mode": "garbage"}
        cycle = {"accept": 1, "refuse": 2}
        async with start() as client:
            put = await client.put(
                "/dashboard/controls/mock/faults/getUsers", json=fault, headers=CONTROL
            )
            set_cycle = await client.put(
                "/dashboard/controls/mock/cycle", json=cycle, headers=CONTROL
            )
            seen = await (await client.get("/dashboard/controls/mock")).json()
            failing = await client.get("/api/getUsers")
            healed = await client.post("/dashboard/controls/mock/reset", headers=CONTROL)
            working = await client.get("/api/getUsers")

        assert (put.status, set_cycle.status, healed.status) == (200, 200, 200)
        assert seen["faults"]["getUsers"]["mode"] == "garbage"
        assert seen["cycle"] == cycle
        assert (failing.status, working.status) == (502, 200)

    async def test_the_mock_answers_a_status_with_retry_after_late_and_is_healed_by_operation(
        self, start: Start, mock: MockUpstream
    ):
        fault = {"status": 503, "error_rate": 1, "headers": {"Retry-After": "7"}, "delay": 0.01}
        path = "/dashboard/controls/mock"
        async with start() as client:
            await client.put(f"{path}/faults/getUsers", json=fault, headers=CONTROL)
            await client.put(
                f"{path}/faults/getEvents", json={"mode": "slow-body"}, headers=CONTROL
            )
            await client.put(f"{path}/event-delay", json={"seconds": 0.25}, headers=CONTROL)
            seen = await (await client.get(path)).json()
            refused = await client.get("/api/getUsers")
            healed = await client.delete(f"{path}/faults/getUsers", headers=CONTROL)
            left = await (await client.get(path)).json()
            unguarded = await client.delete(f"{path}/faults/getEvents")

        assert seen["faults"]["getUsers"] == {**fault, "error_rate": 1.0}
        assert seen["eventDelay"] == mock.event_delay == 0.25
        assert (refused.status, refused.headers["retry-after"]) == (503, "7")
        assert (healed.status, unguarded.status) == (200, 403)
        assert left["faults"] == {"getEvents": {"mode": "slow-body"}}

    async def test_a_fault_that_makes_no_sense_is_refused(self, start: Start):
        async with start() as client:
            response = await client.put(
                "/dashboard/controls/mock/faults/getUsers",
                json={"error_rate": 7, "delay": -1},
                headers=CONTROL,
            )
            unknown = await client.put(
                "/dashboard/controls/mock/faults/nothing", json={}, headers=CONTROL
            )

        assert response.status == 422
        assert unknown.status == 400

    async def test_without_a_mock_the_controls_say_so(self, start: Start):
        async with start(upstream_url="http://127.0.0.1:9") as client:
            response = await client.get("/dashboard/controls/mock")

        assert response.status == 502


@pytest.fixture
def outbox_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/outbox.db"


class TestOutbox:
    async def test_what_waits_is_listed_shown_retried_and_dropped(
        self, start: Start, mock: MockUpstream, outbox_url: str
    ):
        refuses = {"status": 422, "error_rate": 1}
        event = {"userId": "1", "title": "Standup"}
        path, controls = "/dashboard/outbox", "/dashboard/controls/outbox"
        with structlog.testing.capture_logs() as lines:
            async with start(outbox_url=outbox_url) as client:
                await client.put(
                    "/dashboard/controls/mock/faults/addEvent", json=refuses, headers=CONTROL
                )
                taken = await client.post("/api/addEvent", json=event, headers=LATER)
                theirs = await client.post(
                    "/api/addEvent", json={**event, "userId": "2"}, headers=LATER
                )
                delivery = (await taken.json())["id"]
                for each in (delivery, (await theirs.json())["id"]):
                    await until_state(client, each, "refused")
                listed = await (await client.get(f"{path}?state=refused&user=1")).json()
                shown = await (await client.get(f"{path}/{delivery}")).json()
                mock.reset()
                why = {"reason": "mended", "by": "Kim"}
                retried = await client.post(
                    f"{controls}/{delivery}/retry", json=why, headers=CONTROL
                )
                await until_state(client, delivery, "delivered")
                again = await client.post(f"{controls}/{delivery}/retry", headers=CONTROL)
                dropped = await client.post(f"{controls}/{delivery}/drop", headers=CONTROL)
                gone = await client.get(f"{path}/{delivery}")
                nobody = await client.post(f"{controls}/{delivery}/drop", headers=CONTROL)

        (row,) = listed["deliveries"]
        assert (row["id"], row["userId"], row["problem"]) == (delivery, "1", "upstream-rejected")
        assert (shown["event"]["title"], shown["lastProblem"]["status"]) == ("Standup", 422)
        assert (retried.status, again.status, dropped.status) == (200, 400, 200)
        assert "it is delivered" in (await again.json())["detail"].lower()
        assert (gone.status, nobody.status) == (404, 404)
        (line,) = [line for line in lines if line.get("action") == "outbox retry"][:1]
        assert (line["target"], line["reason"], line["by"]) == (delivery, "mended", "Kim")

    async def test_pages_come_newest_first(self, start: Start, mock: MockUpstream, outbox_url: str):
        async with start(outbox_url=outbox_url) as client:
            for number in range(5):
                event = {"userId": "1", "title": f"event {number}"}
                await client.post("/api/addEvent", json=event, headers=LATER)
            first = await (await client.get("/dashboard/outbox?limit=3")).json()
            last = first["deliveries"][-1]["number"]
            second = await (await client.get(f"/dashboard/outbox?before={last}")).json()

        numbers = [row["number"] for row in first["deliveries"] + second["deliveries"]]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == 5

    @pytest.mark.parametrize(
        "query",
        [
            *("state=lost", "limit=0", "limit=201", "user=%00"),
            *("before=x", "before=" + "9" * 30, "before=" + "0" * 10 + "9" * 30),
        ],
    )
    async def test_a_question_that_makes_no_sense_is_refused(
        self, start: Start, outbox_url: str, query: str
    ):
        async with start(outbox_url=outbox_url) as client:
            response = await client.get(f"/dashboard/outbox?{query}")

        assert response.status == 400

    async def test_production_asks_who_they_are_and_why(self, start: Start, outbox_url: str):
        drop = "/dashboard/controls/outbox/some-id/drop"
        why = {"reason": "poison", "by": "Kim"}
        async with start(**PRODUCTION, outbox_url=outbox_url) as client:
            stranger = await client.get("/dashboard/outbox")
            looks = await client.get("/dashboard/outbox", headers=BEARER)
            off = await client.post(drop, headers={**BEARER, **CONTROL}, json=why)
        async with start(**PRODUCTION, outbox_url=outbox_url, dashboard_controls=True) as client:
            silent = await client.post(drop, headers={**BEARER, **CONTROL})
            asked = await client.post(drop, headers={**BEARER, **CONTROL}, json=why)
            page = await (await client.get("/dashboard", headers=BEARER)).text()

        assert (stranger.status, looks.status, off.status) == (401, 200, 404)
        assert (silent.status, asked.status) == (400, 404)
        assert (await asked.json())["type"] == "/problems/delivery-not-found"
        assert 'data-controls="breakers outbox"' in page

    async def test_without_an_outbox_there_is_nothing_to_look_at(self, start: Start):
        async with start() as client:
            assert (await client.get("/dashboard/outbox")).status == 404


async def until_state(client: aiohttp.ClientSession, delivery: str, state: str) -> None:
    async with asyncio.timeout(20):
        while (await (await client.get(f"/api/addEvent/{delivery}")).json())["status"] != state:
            pass

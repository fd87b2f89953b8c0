"""What a client sees of durable writes."""

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import apsw
import pytest
from structlog.testing import capture_logs

from mock_upstream import Fault, MockUpstream

from .conftest import Start
from .otlp_receiver import receiving
from .server_process import serve

pytestmark = pytest.mark.anyio

EVENT = {"userId": "1", "title": "Standup"}
DOWN = Fault(status=503)


@pytest.fixture
def started(start: Start, tmp_path: Path):
    """The service with an outbox in a file; the same file each time."""

    @asynccontextmanager
    async def started(**settings: Any):
        values = {"outbox_url": f"sqlite:///{tmp_path}/outbox.db", "breaker_cooldown": 0.3}
        async with start(**{**values, **settings}) as client:
            yield client

    return started


async def add(client, event=EVENT, prefer="respond-async", **headers):
    return await client.post("/api/addEvent", json=event, headers={"Prefer": prefer, **headers})


async def settled(client, location, **headers):
    async with asyncio.timeout(30):
        while True:
            told = await (await client.get(location, headers=headers)).json()
            if told["status"] != "queued":
                return told
            await asyncio.sleep(0.02)


def titles(mock: MockUpstream, user_id: str = "1") -> list[str]:
    return [event.title for event in mock.store.events() if event.user_id == user_id]


async def test_an_event_is_accepted_at_once_and_delivered_once(started, mock):
    async with started() as client:
        reply = await add(client, {"userId": "1", "title": "later", "description": "d"})
        assert reply.status == 202
        body = await reply.json()
        assert body == {"id": body["id"], "status": "queued"}
        assert reply.headers["Location"] == f"/api/addEvent/{body['id']}"
        assert reply.headers["Preference-Applied"] == "respond-async"
        assert int(reply.headers["Retry-After"]) >= 1
        told = await settled(client, reply.headers["Location"])
        accepted, finished = (datetime.fromisoformat(told[k]) for k in ("acceptedAt", "finishedAt"))
        assert accepted <= finished
        assert told == {
            "id": body["id"],
            "status": "delivered",
            "attempts": 1,
            "acceptedAt": told["acceptedAt"],
            "finishedAt": told["finishedAt"],
            "eventId": body["id"],
            "problem": None,
        }
    assert titles(mock).count("later") == 1
    assert UUID(body["id"]).version == 7


@pytest.mark.slow
async def test_it_waits_through_an_outage(started, mock):
    mock.faults.set("addEvent", DOWN)
    async with started() as client:
        locations = [(await add(client)).headers["Location"] for _ in range(5)]
        told = await (await client.get(locations[0])).json()
        assert (told["status"], told["finishedAt"], told["eventId"]) == ("queued", None, None)
        mock.faults.clear("addEvent")
        for location in locations:
            assert (await settled(client, location))["status"] == "delivered"
    assert titles(mock).count("Standup") == 5


async def test_it_waits_while_nobody_serves(started, mock):
    mock.faults.set("addEvent", DOWN)
    async with started() as client:
        location = (await add(client)).headers["Location"]
    mock.faults.clear("addEvent")
    async with started() as client:
        assert (await settled(client, location))["status"] == "delivered"


async def test_with_wait_a_quick_delivery_is_answered_as_ever(started, mock):
    async with started() as client:
        reply = await add(client, prefer="respond-async, wait=5")
        assert reply.status == 200
        body = await reply.json()
        assert body == {"success": True, "id": body["id"]}
        assert (await (await client.get(f"/api/addEvent/{body['id']}")).json())[
            "status"
        ] == "delivered"


async def test_with_wait_a_slow_delivery_is_answered_202_after_it(started, mock):
    mock.faults.set("addEvent", Fault(delay=1.5))
    async with started() as client:
        reply = await add(client, prefer="respond-async, wait=1")
        assert reply.status == 202
        assert (await settled(client, reply.headers["Location"]))["status"] == "delivered"


async def test_the_wait_is_cut_to_the_deadline(started, mock):
    mock.faults.set("addEvent", DOWN)
    async with started(request_deadline=1.0) as client:
        reply = await add(client, prefer="respond-async, wait=100")
        assert reply.status == 202


async def test_with_wait_a_refusal_is_answered_422(started, mock):
    mock.faults.set("addEvent", Fault(status=422))
    async with started() as client:
        reply = await add(client, prefer="respond-async, wait=5")
        problem = await reply.json()
        assert (reply.status, problem["type"]) == (422, "/problems/upstream-rejected")
        assert problem["upstream_status"] == 422
        reply = await add(client, {"userId": "nobody", "title": "t"}, "respond-async, wait=5")
        assert reply.status == 422


@pytest.mark.parametrize(
    ("fault", "event", "slug"),
    [
        (Fault(status=400), EVENT, "upstream-rejected"),
        (Fault(status=409), EVENT, "upstream-conflict"),
        (Fault(), {"userId": "nobody", "title": "t"}, "user-not-found"),
    ],
)
async def test_a_refusal_is_told_with_its_problem(started, mock, fault, event, slug):
    mock.faults.set("addEvent", fault)
    async with started() as client:
        location = (await add(client, event)).headers["Location"]
        told = await settled(client, location)
    assert told["status"] == "refused"
    assert told["problem"]["type"] == f"/problems/{slug}"
    assert told["problem"]["instance"] == location
    assert told["problem"]["request_id"]
    assert told["eventId"] is None


async def test_without_the_preference_or_an_outbox_all_is_as_before(started, mock):
    async with started() as client:
        assert (await add(client, prefer="return=minimal")).status == 200
    async with started(outbox_url="") as client:
        assert (await add(client)).status == 200
        assert (await client.get("/api/addEvent/x")).status == 404


async def test_an_unknown_delivery_is_not_found(started):
    async with started() as client:
        reply = await client.get("/api/addEvent/0192f0c1")
        assert (reply.status, (await reply.json())["type"]) == (
            404,
            "/problems/delivery-not-found",
        )
        assert (await client.get("/api/addEvent/a%20b")).status == 400


async def test_another_clients_delivery_is_not_found(started, mock):
    async with started(api_key_header="x-api-key") as client:
        mine = {"X-API-Key": "mine"}
        location = (await add(client, **mine)).headers["Location"]
        assert (await client.get(location, headers=mine)).status == 200
        assert (await client.get(location, headers={"X-API-Key": "other"})).status == 404
        assert (await client.get(location)).status == 404


async def test_the_same_key_is_one_delivery_and_another_body_is_refused(started, mock):
    key = {"Idempotency-Key": "k"}
    async with started() as client:
        first, again = await add(client, **key), await add(client, **key)
        assert first.headers["Location"] == again.headers["Location"]
        assert again.status == 202
        same = {**EVENT, "description": ""}
        assert (await add(client, same, **key)).headers["Location"] == first.headers["Location"]
        for other in ({**EVENT, "title": "x"}, {**EVENT, "userId": "2"}):
            reply = await add(client, other, **key)
            assert reply.status == 422
            assert (await reply.json())["type"] == "/problems/idempotency-key-reused"
        await settled(client, first.headers["Location"])
        assert (await (await add(client, **key)).json())["status"] == "delivered"
        # The synchronous path and the other name the event alike.
        reply = await client.post("/api/addEvent", json=EVENT, headers=key)
        assert (await reply.json())["id"] == (await first.json())["id"]
    assert titles(mock).count("Standup") == 1
    assert UUID((await first.json())["id"]).version == 5


async def test_two_clients_with_the_same_key_do_not_meet(started, mock):
    key = {"Idempotency-Key": "1"}
    async with started(api_key_header="x-api-key") as client:
        one = await add(client, **key, **{"X-API-Key": "a"})
        two = await add(client, {**EVENT, "title": "other"}, **key, **{"X-API-Key": "b"})
        assert (one.status, two.status) == (202, 202)
        assert one.headers["Location"] != two.headers["Location"]
        for reply, api_key in ((one, "a"), (two, "b")):
            told = await settled(client, reply.headers["Location"], **{"X-API-Key": api_key})
            assert told["status"] == "delivered"


async def test_a_full_outbox_refuses_with_a_time_to_come_again(started, mock):
    mock.faults.set("addEvent", DOWN)
    async with started(outbox_limit=2) as client:
        assert [(await add(client)).status for _ in range(2)] == [202, 202]
        reply = await add(client)
        assert (reply.status, (await reply.json())["type"]) == (503, "/problems/overloaded")
        assert int(reply.headers["Retry-After"]) >= 1


async def test_a_lost_outbox_leaves_the_synchronous_path_alone(started, mock, tmp_path):
    async with started() as client:
        with apsw.Connection(str(tmp_path / "outbox.db")) as other:
            other.execute("DROP TABLE outbox")
            other.execute("DROP TABLE lane")
        reply = await add(client)
        assert (reply.status, (await reply.json())["type"]) == (503, "/problems/outbox-unavailable")
        assert int(reply.headers["Retry-After"]) >= 1
        assert (await client.get("/api/addEvent/x")).status == 503
        assert (await client.post("/api/addEvent", json=EVENT)).status == 200
        assert (await client.get("/readyz")).status == 200


async def test_a_page_of_another_origin_may_use_it(started):
    async with started(cors_origins=["https://app.example"]) as client:
        origin = {"Origin": "https://app.example"}
        ask = {**origin, "Access-Control-Request-Method": "POST"}
        preflight = await client.options("/api/addEvent", headers=ask)
        assert "Prefer" in preflight.headers["Access-Control-Allow-Headers"].split(", ")
        reply = await add(client, **origin)
        exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Location", "Preference-Applied", "Retry-After"} <= set(exposed)


async def test_log_lines_tell_both_requests_and_metrics_count(started, mock):
    mock.faults.set("addEvent", Fault(status=500, first_n=1))
    with capture_logs() as lines:
        async with started() as client:
            reply = await add(client, **{"X-Request-ID": "accepting"})
            await settled(client, reply.headers["Location"])
            text = await (await client.get("/metrics")).text()
    (failed,) = [line for line in lines if line["event"] == "delivery failed"]
    assert (failed["accepted_as"], failed["reason"]) == ("accepting", "status 500")
    (done,) = [line for line in lines if line["event"] == "delivery"]
    assert (done["accepted_as"], done["state"], done["attempts"]) == ("accepting", "delivered", 2)
    metrics = dict(line.split() for line in text.splitlines() if line.startswith("outbox_"))
    assert metrics["outbox_accepted_total"] == "1.0"
    assert metrics["outbox_delivered_total"] == "1.0"
    assert metrics["outbox_pending"] == "0.0"
    assert metrics["outbox_accept_duration_seconds_count"] == "1.0"
    assert metrics["outbox_delivery_seconds_count"] == "1.0"


@pytest.mark.slow
async def test_the_upstream_sees_the_same_id_and_key_at_each_attempt(started, mock):
    mock.faults.set("addEvent", Fault(status=500, first_n=1))
    async with started() as client:
        reply = await add(client, **{"Idempotency-Key": "k"})
        await settled(client, reply.headers["Location"])
    keys = [
        entry.idempotency_key for entry in mock.journal.entries if entry.operation == "addEvent"
    ]
    assert keys == ["k"] * 2


async def test_a_trace_leads_from_the_delivery_to_the_request_that_brought_it(
    started, mock, monkeypatch
):
    trace_id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    async with receiving() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        async with started(app={"tracing": True}) as client:
            reply = await add(client, traceparent=f"00-{trace_id}-{parent}-01")
            await settled(client, reply.headers["Location"])
        accepting = received.one("POST /api/addEvent")
        delivery = received.one("deliver addEvent")
        assert accepting.trace_id.hex() == trace_id
        (link,) = delivery.links
        assert (link.trace_id, link.span_id) == (accepting.trace_id, accepting.span_id)
        call = received.one("POST /addEvent")
        assert call.parent_span_id == delivery.span_id


async def test_it_works_on_postgres_too(start, mock, postgres_url):
    mock.faults.set("addEvent", Fault(status=503, first_n=1))
    async with start(outbox_url=postgres_url, breaker_cooldown=0.3) as client:
        key = {"Idempotency-Key": "k"}
        first, again = await add(client, **key), await add(client, **key)
        assert first.headers["Location"] == again.headers["Location"]
        assert (await add(client, {**EVENT, "title": "x"}, **key)).status == 422
        assert (await settled(client, first.headers["Location"]))["status"] == "delivered"
        assert (await client.get("/api/addEvent/x")).status == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("initdb"))]
)
async def test_the_same_key_a_hundred_times_over_four_workers_is_one_event(
    request, mock, tmp_path, database
):
    url = f"sqlite:///{tmp_path}/outbox.db"
    if database == "postgres":
        url = request.getfixturevalue("postgres_url")
    async with serve(mock.url, workers="4", outbox_url=url) as server:
        pids = {await server.started() for _ in range(4)}
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(server.url, connector=connector) as client:
            key = {"Idempotency-Key": "k"}
            replies = await asyncio.gather(*(add(client, **key) for _ in range(100)))
            assert {reply.status for reply in replies} == {202}
            (location,) = {reply.headers["Location"] for reply in replies}
            assert (await settled(client, location))["status"] == "delivered"
    workers = {line["worker"] for line in server.lines if line["event"] == "request"}
    assert len(pids) == 4
    assert len(workers) > 1
    assert titles(mock).count("Standup") == 1
    assert mock.journal.counts["addEvent"] == 1

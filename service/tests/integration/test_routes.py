import asyncio

import pytest

from mock_upstream import Fault, MockUpstream

from .conftest import Start

pytestmark = pytest.mark.anyio

NEW_EVENT = {"userId": "2", "title": "Standup", "description": "Every morning."}


async def test_get_users_lists_every_user_with_its_event_ids(start: Start):
    async with start() as client, client.get("/api/getUsers") as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert (await response.json())[0] == {
            "id": "1",
            "name": "Alice Johnson",
            "events": ["101", "102"],
        }


async def test_get_events_lists_every_event(start: Start):
    async with start() as client, client.get("/api/getEvents") as response:
        events = await response.json()

    assert [event["id"] for event in events] == ["101", "102", "103"]
    assert set(events[0]) == {"id", "userId", "title", "description"}


async def test_a_users_events_come_in_the_order_of_its_list(start: Start):
    async with start() as client, client.get("/api/getEventsByUserId/1") as response:
        events = await response.json()

    assert [event["id"] for event in events] == ["101", "102"]
    assert {event["userId"] for event in events} == {"1"}


async def test_a_user_without_events_has_an_empty_list(start: Start, mock: MockUpstream):
    async with start() as client, client.get("/api/getEventsByUserId/2") as response:
        assert (response.status, await response.json()) == (200, [])

    assert mock.journal.counts["getEventById"] == 0


async def test_a_partial_reply_without_errors_says_so(start: Start):
    async with start() as client, client.get("/api/getEventsByUserId/3?partial=1") as response:
        reply = await response.json()

    assert [event["id"] for event in reply["events"]] == ["103"]
    assert (reply["errors"], reply["partial"]) == ([], False)


async def test_a_partial_reply_tells_the_problem_of_each_event_that_failed(
    start: Start, mock: MockUpstream
):
    mock.faults.set("getEventById", Fault(status=500, first_n=1))
    async with (
        start(retry_attempts=1) as client,
        client.get("/api/getEventsByUserId/1?partial=true") as response,
    ):
        reply = await response.json()

    assert response.status == 200
    assert len(reply["events"]) == 1
    assert reply["partial"] is True
    (error,) = reply["errors"]
    assert error["id"] in {"101", "102"}
    assert (error["type"], error["status"]) == ("/problems/upstream-error", 502)


async def test_a_partial_reply_still_needs_the_user(start: Start):
    async with start() as client, client.get("/api/getEventsByUserId/9?partial=true") as response:
        assert response.status == 404


async def test_an_added_event_can_be_seen_everywhere(start: Start):
    async with start() as client:
        async with client.post("/api/addEvent", json=NEW_EVENT) as response:
            added = await response.json()
        async with client.get("/api/getEventsByUserId/2") as response:
            of_bob = await response.json()

    assert added["success"] is True
    assert of_bob == [{"id": added["id"], **NEW_EVENT}]


async def test_an_event_needs_no_description(start: Start):
    async with (
        start() as client,
        client.post("/api/addEvent", json={"userId": "1", "title": "x"}) as response,
    ):
        assert response.status == 200


async def test_the_same_idempotency_key_stores_one_event_and_gets_its_id_again(
    start: Start, mock: MockUpstream
):
    async with start() as client:
        ids = []
        for _ in range(2):
            async with client.post(
                "/api/addEvent", json=NEW_EVENT, headers={"Idempotency-Key": "order-7!"}
            ) as response:
                ids.append((await response.json())["id"])
        async with client.get("/api/getEvents") as response:
            events = await response.json()

    assert ids[0] == ids[1]
    assert len(events) == 4


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_is_told(start: Start, path: str):
    async with start() as client, client.get(path) as response:
        assert response.status == 200
        assert (await response.json())["status"] == "ok"


async def test_an_open_breaker_is_degraded_and_still_ready(start: Start, mock: MockUpstream):
    mock.faults.set("addEvent", Fault(status=500))
    async with start() as client:
        for _ in range(3):
            await client.post("/api/addEvent", json=NEW_EVENT)
        async with client.get("/readyz") as response:
            ready = await response.json()

    assert response.status == 200
    assert ready["status"] == "degraded"
    assert ready["breakers"]["addEvent"] == "open"
    assert ready["breakers"]["getUsers"] == "closed"


async def test_a_head_request_is_a_get_without_its_body(start: Start):
    async with start() as client, client.head("/api/getUsers") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


async def test_simultaneous_requests_are_served_at_once(start: Start, mock: MockUpstream):
    mock.event_delay = 0.5
    async with start(single_flight=False) as client:
        await asyncio.gather(*[client.get("/api/getEventsByUserId/1") for _ in range(20)])

    assert mock.journal.max_in_flight == 40

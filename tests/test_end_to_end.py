import asyncio
import json

import aiohttp
import pytest

from .processes import event_service, mock_upstream

pytestmark = pytest.mark.anyio

EVENT = {"userId": "1", "title": "Standup"}


async def test_a_newcomer_uses_all_four_endpoints():
    with (
        mock_upstream("--event-delay", "0.05") as upstream,
        event_service(upstream) as (url, _),
    ):
        async with aiohttp.ClientSession(url) as client:
            users = await (await client.get("/api/getUsers")).json()
            added = await (await client.post("/api/addEvent", json=EVENT)).json()
            events = await (await client.get("/api/getEvents")).json()
            of_alice = await (await client.get("/api/getEventsByUserId/1")).json()

    assert [user["name"] for user in users] == ["Alice Johnson", "Bob Anderson", "Carla Mendez"]
    assert added["success"] is True
    assert added["id"] in [event["id"] for event in events]
    assert [event["id"] for event in of_alice] == ["101", "102", added["id"]]


async def test_the_circuit_opens_refuses_sends_one_canary_and_closes_again():
    with (
        mock_upstream("--accept", "5", "--refuse", "4") as upstream,
        event_service(upstream, BREAKER_COOLDOWN="0.3") as (url, process),
    ):
        async with aiohttp.ClientSession(url) as client:

            async def add() -> tuple[int, str, str]:
                response = await client.post("/api/addEvent", json=EVENT)
                body = await response.json()
                kind = body.get("type", "").removeprefix("/problems/")
                return response.status, kind, response.headers.get("Retry-After", "")

            replies = [await add() for _ in range(9)]
            reached_before_opening = await reached(upstream)
            canary = await call_until_one_is_let_in(client, callers=10)
            reached_by_canary = await reached(upstream) - reached_before_opening
            recovery = await call_until_one_is_let_in(client, callers=1)
            closed = await add()
            ready = await (await client.get("/readyz")).json()

    assert replies[:5] == [(200, "", "")] * 5
    assert replies[5:8] == [(503, "upstream-unavailable", "1")] * 3
    assert replies[8] == (503, "circuit-open", "1")
    assert reached_before_opening == 8
    assert (canary, reached_by_canary) == ({"upstream-unavailable"}, 1)
    assert recovery == {""}
    assert closed == (200, "", "")
    assert ready["status"] == "ok"
    transitions = [
        (line["old"], line["new"])
        for line in map(json.loads, process.output.splitlines())
        if line["event"] == "breaker state changed"
    ]
    assert transitions == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


async def call_until_one_is_let_in(client: aiohttp.ClientSession, *, callers: int) -> set[str]:
    """So many at once, again and again; the problems they got that were not `circuit-open`."""
    while True:
        responses = await asyncio.gather(
            *[client.post("/api/addEvent", json=EVENT) for _ in range(callers)]
        )
        bodies = [await response.json() for response in responses]
        slugs = {body.get("type", "").removeprefix("/problems/") for body in bodies}
        if let_in := slugs - {"circuit-open"}:
            return let_in
        await asyncio.sleep(0.01)


async def reached(upstream: str) -> int:
    async with aiohttp.ClientSession(upstream) as client:
        journal = await (await client.get("/__admin/requests")).json()
        count: int = journal["counts"].get("addEvent", 0)
        return count

"""The cache in front of the upstream: what it spares, what it says, and what it must not keep."""

import asyncio

import pytest

from mock_upstream import Fault, MockUpstream

from .crowd import status_of, until
from .observed_service import Clock, ObservedService, observed, problem
from .scripted_upstream import Call, Connection, response, scripted

pytestmark = pytest.mark.anyio

USERS = "/api/getUsers"
EVENTS_OF_ALICE = "/api/getEventsByUserId/1"
NEW = {"userId": "1", "title": "Tea"}


async def look(service: ObservedService, path: str = USERS) -> tuple[int, str | None, str | None]:
    async with service.client.get(path) as reply:
        await reply.read()
        return reply.status, reply.headers.get("Cache-Status"), reply.headers.get("Age")


async def test_without_a_cache_every_request_asks_and_no_reply_speaks_of_one(mock: MockUpstream):
    async with observed(upstream_url=mock.url) as service:
        assert [await look(service) for _ in range(2)] == [(200, None, None)] * 2
        assert mock.journal.counts["getUsers"] == 2


async def test_a_fresh_value_is_not_fetched_again(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, cache_ttl=10, clock=clock) as service:
        assert await look(service) == (200, "event-service; fwd=miss", None)
        clock.now += 3.7
        assert await look(service) == (200, "event-service; hit; ttl=6", "3")
        clock.now += 6.3
        assert await look(service) == (200, "event-service; fwd=miss", None)

        assert mock.journal.counts["getUsers"] == 2
        assert service.heard.cache_hits == ["getUsers"]


async def test_the_age_of_a_reply_made_of_parts_is_that_of_its_oldest(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, cache_ttl=10, clock=clock) as service:
        await look(service, EVENTS_OF_ALICE)
        clock.now += 4
        assert await look(service, EVENTS_OF_ALICE) == (200, "event-service; hit; ttl=6", "4")
        async with service.client.post("/api/addEvent", json=NEW):
            pass
        # The user and the new event are asked for; the old events are not.
        assert await look(service, EVENTS_OF_ALICE) == (
            200,
            "event-service; fwd=miss; ttl=6",
            "4",
        )
        assert mock.journal.counts["getUserById"] == 2
        assert mock.journal.counts["getEventById"] == 3


async def test_a_write_makes_its_user_and_both_lists_be_asked_for_again(mock: MockUpstream):
    async with observed(upstream_url=mock.url, cache_ttl=1000, stale_if_error=1000) as service:
        paths = (USERS, "/api/getEvents", EVENTS_OF_ALICE, "/api/getEventsByUserId/3")
        for path in paths:
            await look(service, path)
        mock.journal.clear()
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert reply.status == 200
        for path in paths:
            await look(service, path)

        assert mock.journal.counts == {
            "getUsers": 1,
            "getEvents": 1,
            "getUserById": 1,
            "getEventById": 1,
            "addEvent": 1,
        }


async def test_a_write_that_failed_leaves_the_cache_alone(mock: MockUpstream):
    mock.faults.set("addEvent", Fault(status=500))
    async with observed(upstream_url=mock.url, cache_ttl=1000) as service:
        await look(service)
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert reply.status == 502
        await look(service)

        assert mock.journal.counts["getUsers"] == 1


@pytest.mark.parametrize("mode", ["reset", "hang", "truncate"])
async def test_after_a_write_that_may_have_been_carried_out_nobody_reads_old_data(
    mock: MockUpstream, mode: str
):
    mock.faults.set("addEvent", Fault(mode=mode))
    async with observed(upstream_url=mock.url, cache_ttl=1000, upstream_timeout=0.3) as service:
        await look(service)
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert reply.status in {502, 504}
        await look(service)

        assert mock.journal.counts["getUsers"] == 2


class FirstUserLate:
    """Its first answer is of before the write, and comes after it."""

    def __init__(self) -> None:
        self.written = asyncio.Event()

    async def __call__(self, connection: Connection, call: Call) -> None:
        if call.path == "/addEvent":
            await connection.send(response(b'{"success":true,"id":"9"}'))
        elif call.path.startswith("/getEventById"):
            await connection.send(response(b'{"id":"9","userId":"1","title":"Tea"}'))
        elif self.written.is_set():
            await connection.send(response(b'{"id":"1","name":"Alice","events":["9"]}'))
        else:
            await self.written.wait()
            await connection.send(response(b'{"id":"1","name":"Alice","events":[]}'))


@pytest.mark.parametrize("single_flight", [True, False])
async def test_a_fetch_from_before_a_write_is_not_joined_and_not_cached(*, single_flight: bool):
    script = FirstUserLate()
    async with (
        scripted(script) as upstream,
        observed(upstream_url=upstream.url, cache_ttl=1000, single_flight=single_flight) as service,
    ):
        before = asyncio.create_task(status_of(service.client, EVENTS_OF_ALICE))
        await until(lambda: len(upstream.calls) == 1)
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert reply.status == 200
        script.written.set()
        assert await before == 200

        async with service.client.get(EVENTS_OF_ALICE) as reply:
            assert [event["id"] for event in await reply.json()] == ["9"]


async def test_a_read_after_a_write_does_not_join_an_earlier_call_or_cache_its_value():
    script = FirstUserLate()
    async with (
        scripted(script) as upstream,
        observed(
            upstream_url=upstream.url, cache_ttl=1000, upstream_timeout=20, request_deadline=40
        ) as service,
    ):
        before = asyncio.create_task(status_of(service.client, EVENTS_OF_ALICE))
        await until(lambda: len(upstream.calls) == 1)
        async with service.client.post("/api/addEvent", json=NEW):
            pass
        after = asyncio.create_task(status_of(service.client, EVENTS_OF_ALICE))
        await until(lambda: len(upstream.calls) == 3)
        script.written.set()

        assert [await before, await after] == [200, 200]


async def test_errors_are_never_kept(mock: MockUpstream):
    async with observed(
        upstream_url=mock.url, cache_ttl=1000, stale_if_error=1000, retry_attempts=1
    ) as service:
        for fault in (Fault(status=500, first_n=1), Fault(status=404, first_n=1)):
            mock.faults.set("getUserById", fault)
            assert (await look(service, EVENTS_OF_ALICE))[0] in {404, 502}
        assert (await look(service, EVENTS_OF_ALICE))[0] == 200


async def test_a_stale_reply_takes_the_place_of_an_error_after_one_attempt(mock: MockUpstream):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, cache_ttl=10, stale_if_error=60, clock=clock
    ) as service:
        await look(service)
        clock.now += 15
        mock.faults.set("getUsers", Fault(status=500))
        assert await look(service) == (
            200,
            "event-service; fwd=stale; ttl=-5; detail=stale-if-error",
            "15",
        )
        assert mock.journal.counts["getUsers"] == 2
        mock.faults.clear_all()
        assert await look(service) == (200, "event-service; fwd=stale", None)
        assert await look(service) == (200, "event-service; hit; ttl=10", "0")


async def test_while_the_circuit_is_open_a_stale_reply_comes_at_once(mock: MockUpstream):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, cache_ttl=10, stale_if_error=60, clock=clock
    ) as service:
        await look(service)
        clock.now += 12
        service.breakers["getUsers"].trip()
        assert await look(service) == (
            200,
            "event-service; hit; ttl=-2; detail=stale-if-error",
            "12",
        )
        assert mock.journal.counts["getUsers"] == 1


async def test_a_stale_reply_too_old_to_be_served_is_an_error_again(mock: MockUpstream):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, cache_ttl=10, stale_if_error=60, clock=clock
    ) as service:
        await look(service)
        clock.now += 70
        service.breakers["getUsers"].trip(for_=1000)
        async with service.client.get(USERS) as reply:
            assert (await problem(reply))[:2] == (503, "circuit-open")
            assert "Cache-Status" not in reply.headers


async def test_stale_replies_alone_can_be_wanted(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, stale_if_error=60, clock=clock) as service:
        assert await look(service) == (200, "event-service; fwd=miss", None)
        assert await look(service) == (200, "event-service; fwd=stale", None)
        mock.faults.set("getUsers", Fault(mode="reset"))
        clock.now += 59
        assert await look(service) == (
            200,
            "event-service; fwd=stale; ttl=-59; detail=stale-if-error",
            "59",
        )


async def test_a_user_that_is_gone_is_not_served_stale(mock: MockUpstream):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, cache_ttl=10, stale_if_error=60, retry_attempts=1, clock=clock
    ) as service:
        await look(service, EVENTS_OF_ALICE)
        clock.now += 11
        mock.faults.set("getUserById", Fault(status=404))
        assert (await look(service, EVENTS_OF_ALICE))[0] == 404
        mock.faults.set("getUserById", Fault(status=500))
        assert (await look(service, EVENTS_OF_ALICE))[0] == 502


async def test_a_write_while_the_upstream_fails_takes_the_stale_reply_away(mock: MockUpstream):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, cache_ttl=10, stale_if_error=60, retry_attempts=1, clock=clock
    ) as service:
        await look(service)
        clock.now += 11
        mock.faults.set("getUsers", Fault(status=500, delay=0.5))
        reading = asyncio.create_task(status_of(service.client, USERS))
        await until(lambda: mock.journal.counts["getUsers"] == 2)
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert reply.status == 200

        assert await reading == 502

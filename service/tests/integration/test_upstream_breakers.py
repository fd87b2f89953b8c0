"""What the breakers in front of the upstream count, when they open and how they close again."""

import asyncio
from collections import Counter

import pytest

from halfopen import State
from mock_upstream import Fault, MockUpstream

from .crowd import status_of, until
from .observed_service import Clock, ObservedService, observed, problem

pytestmark = pytest.mark.anyio

NEW = {"userId": "1", "title": "Tea"}


async def add(service: ObservedService) -> int:
    async with service.client.post("/api/addEvent", json=NEW) as reply:
        await reply.read()
        return reply.status


@pytest.mark.parametrize(
    ("seconds", "state"), [(29.999, State.OPEN), (30.0, State.OPEN), (30.001, State.CLOSED)]
)
async def test_writes_are_stopped_by_the_third_failure_in_a_rolling_window(
    mock: MockUpstream, seconds: float, state: State
):
    clock = Clock()
    clock.now = 1024.0  # exact in binary, as are its sums with the times below
    mock.faults.set("addEvent", Fault(status=503))
    async with observed(upstream_url=mock.url, clock=clock) as service:
        first = clock.now
        assert await add(service) == 503
        clock.now = first + 17
        assert await add(service) == 503
        assert service.breakers["addEvent"].state is State.CLOSED
        clock.now = first + seconds
        assert await add(service) == 503

        assert service.breakers["addEvent"].state is state


async def test_successes_between_failures_do_not_start_the_count_anew(mock: MockUpstream):
    async with observed(upstream_url=mock.url, clock=Clock()) as service:
        for _ in range(3):
            mock.faults.set("addEvent", Fault(status=500, first_n=1))
            assert await add(service) == 502
            status = await add(service)

        assert status == 503
        assert service.of("addEvent") == [
            *["failure", "success", "failure", "success", "failure", "rejected"]
        ]


async def open_circuit(service: ObservedService, mock: MockUpstream) -> None:
    mock.faults.set("addEvent", Fault(status=503, first_n=3))
    for _ in range(3):
        await add(service)
    assert service.breakers["addEvent"].state is State.OPEN
    mock.journal.clear()


async def test_after_the_cooldown_one_of_fifty_callers_is_the_canary(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, clock=clock) as service:
        await open_circuit(service, mock)
        clock.now += 9.999
        assert await add(service) == 503
        assert mock.journal.total.count == 0

        clock.now += 0.001
        mock.faults.set("addEvent", Fault(delay=0.5, first_n=1))
        statuses = Counter(await asyncio.gather(*(add(service) for _ in range(50))))
        assert statuses == {200: 1, 503: 49}
        assert mock.journal.counts["addEvent"] == 1
        assert await add(service) == 200
        assert service.breakers["addEvent"].state is State.CLOSED


async def test_who_is_refused_while_the_canary_is_out_is_told_to_come_back(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, clock=clock) as service:
        await open_circuit(service, mock)
        clock.now += 10
        mock.faults.set("addEvent", Fault(delay=0.5, first_n=1))
        canary = asyncio.create_task(add(service))
        await until(lambda: mock.journal.counts["addEvent"] == 1)
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            status, slug, _ = await problem(reply)
            assert (status, slug) == (503, "circuit-open")
            assert int(reply.headers["Retry-After"]) >= 1

        assert await canary == 200


async def test_a_canary_that_fails_begins_a_fresh_cooldown(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, clock=clock) as service:
        await open_circuit(service, mock)
        clock.now += 13
        # On a connection that has served a call, the canary's is sent once more.
        mock.faults.set("addEvent", Fault(mode="reset", first_n=2))
        assert await add(service) == 502
        clock.now += 9.999
        assert await add(service) == 503
        clock.now += 0.001
        assert await add(service) == 200

        assert mock.journal.counts["addEvent"] == 3


async def test_a_canary_that_hangs_fails_by_the_time_an_attempt_has(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, upstream_timeout=0.3, clock=clock) as service:
        await open_circuit(service, mock)
        clock.now += 10
        mock.faults.set("addEvent", Fault(mode="hang", first_n=1))
        assert await add(service) == 504
        assert service.breakers["addEvent"].state is State.OPEN
        clock.now += 10
        assert await add(service) == 200


async def test_a_canary_whose_client_leaves_gives_its_slot_back(mock: MockUpstream):
    clock = Clock()
    async with observed(upstream_url=mock.url, clock=clock) as service:
        await open_circuit(service, mock)
        clock.now += 10
        mock.faults.set("addEvent", Fault(mode="hang", first_n=1))
        canary = asyncio.create_task(add(service))
        await until(lambda: mock.journal.counts["addEvent"] == 1)
        canary.cancel()
        await until(lambda: service.of("addEvent")[-1] == "neutral")

        assert await add(service) == 200
        assert service.breakers["addEvent"].state is State.CLOSED


async def test_reads_are_stopped_when_half_of_twenty_calls_failed(mock: MockUpstream):
    async with observed(
        upstream_url=mock.url, retry_attempts=1, single_flight=False, clock=Clock()
    ) as service:
        for number in range(20):
            assert service.breakers["getUsers"].state is State.CLOSED
            if number == 10:
                mock.faults.set("getUsers", Fault(status=500))
            await status_of(service.client, "/api/getUsers")

        assert service.breakers["getUsers"].state is State.OPEN
        assert await status_of(service.client, "/api/getUsers") == 503
        assert mock.journal.counts["getUsers"] == 20
        for path in ("/api/getEvents", "/api/getEventsByUserId/1"):
            assert await status_of(service.client, path) == 200
        assert await add(service) == 200


async def test_reads_go_on_when_less_than_half_failed_or_the_failures_are_old(mock: MockUpstream):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, retry_attempts=1, single_flight=False, clock=clock
    ) as service:
        mock.faults.set("getUsers", Fault(status=500, first_n=19))
        for _ in range(19):
            assert await status_of(service.client, "/api/getUsers") == 502
        clock.now += 10.2
        for _ in range(20):
            assert await status_of(service.client, "/api/getUsers") == 200
        mock.faults.set("getUsers", Fault(status=500, first_n=19))
        for _ in range(19):
            assert await status_of(service.client, "/api/getUsers") == 502

        assert service.breakers["getUsers"].state is State.CLOSED


async def test_unknown_users_say_nothing_against_the_upstream(mock: MockUpstream):
    async with observed(upstream_url=mock.url) as service:
        for number in range(30):
            path = f"/api/getEventsByUserId/nobody-{number}"
            assert await status_of(service.client, path) == 404

        assert service.of("getUserById") == ["success"] * 30


async def test_what_the_deadline_ends_says_nothing_against_the_upstream(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.35))
    async with observed(
        upstream_url=mock.url, upstream_timeout=0.3, request_deadline=0.4
    ) as service:
        assert await status_of(service.client, "/api/getUsers") == 504

        # The first attempt used up its own time; the second was ended by the request's.
        assert service.of("getUsers") == ["failure", "neutral"]

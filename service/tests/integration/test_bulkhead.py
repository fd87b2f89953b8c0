import asyncio
import time
from collections import Counter

import pytest

from mock_upstream import Fault, MockUpstream, run_mock

from .crowd import crowd, status_of, until
from .observed_service import observed, problem

pytestmark = pytest.mark.anyio

USERS = "/api/getUsers"


async def test_no_more_calls_than_the_limit_are_under_way_at_once():
    async with (
        run_mock(users=1, events_per_user=50, event_delay=0.02) as mock,
        observed(upstream_url=mock.url, upstream_concurrency=7) as service,
    ):
        user = next(mock.store.users())
        assert await status_of(service.client, f"/api/getEventsByUserId/{user.id}") == 200

        assert mock.journal.counts["getEventById"] == 50
        assert mock.journal.max_in_flight == 7


async def test_a_call_that_nobody_waits_for_any_more_still_counts_until_it_ends(
    mock: MockUpstream,
):
    mock.faults.set("getUserById", Fault(delay=0.5))
    async with (
        observed(upstream_url=mock.url, upstream_concurrency=2) as service,
        crowd(service.client) as clients,
    ):
        leavers = [asyncio.create_task(status_of(clients, events_of(n))) for n in ("8", "9")]
        await until(lambda: mock.journal.total.in_flight == 2)
        for leaver in leavers:
            leaver.cancel()
        await until(lambda: service.bulkhead.in_flight == 0)

        assert await asyncio.gather(
            status_of(clients, events_of("1")), status_of(clients, events_of("3"))
        ) == [200, 200]
        assert mock.journal.total.max_in_flight == 2


def events_of(user_id: str) -> str:
    return f"/api/getEventsByUserId/{user_id}"


async def test_a_user_with_more_events_than_may_wait_is_served():
    async with (
        run_mock(users=1, events_per_user=3_000, event_delay=0) as mock,
        observed(upstream_url=mock.url, upstream_concurrency=50, request_deadline=60) as service,
    ):
        user = next(mock.store.users())
        assert await status_of(service.client, f"/api/getEventsByUserId/{user.id}") == 200


async def test_waiting_counts_against_the_deadline(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=1))
    async with observed(
        upstream_url=mock.url, upstream_concurrency=1, single_flight=False, request_deadline=1.5
    ) as service:
        first = asyncio.create_task(status_of(service.client, USERS))
        await until(lambda: service.bulkhead.in_flight == 1)
        began = time.monotonic()
        async with service.client.get(USERS) as reply:
            assert (await problem(reply))[:2] == (504, "upstream-timeout")
        assert time.monotonic() - began < 3
        assert await first == 200
        await until(lambda: service.bulkhead.in_flight == service.bulkhead.waiting == 0)


async def test_when_too_many_wait_the_next_is_refused_at_once_and_no_breaker_counts_it(
    mock: MockUpstream,
):
    mock.faults.set("getUsers", Fault(delay=1))
    async with (
        observed(
            upstream_url=mock.url, upstream_concurrency=1, single_flight=False, request_deadline=2
        ) as service,
        crowd(service.client) as clients,
    ):
        waiting = [asyncio.create_task(status_of(clients, USERS)) for _ in range(11)]
        await until(lambda: service.bulkhead.waiting == 10)
        async with service.client.get(USERS) as reply:
            status, slug, _ = await problem(reply)

        assert (status, slug, reply.headers["Retry-After"]) == (503, "overloaded", "1")
        assert service.of("getUsers") == ["neutral"]
        assert not service.heard.retries
        assert Counter(await asyncio.gather(*waiting))[504] >= 9


async def test_a_client_that_leaves_the_queue_leaves_no_hole(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.4))
    async with (
        observed(upstream_url=mock.url, upstream_concurrency=1, single_flight=False) as service,
        crowd(service.client) as clients,
    ):
        first = asyncio.create_task(status_of(clients, USERS))
        await until(lambda: service.bulkhead.in_flight == 1)
        leaver = asyncio.create_task(status_of(clients, USERS))
        await until(lambda: service.bulkhead.waiting == 1)
        last = asyncio.create_task(status_of(clients, USERS))
        await until(lambda: service.bulkhead.waiting == 2)
        leaver.cancel()
        await until(lambda: service.bulkhead.waiting <= 1)

        assert [await first, await last] == [200, 200]
        assert mock.journal.counts["getUsers"] == 2
        assert service.bulkhead.in_flight == service.bulkhead.waiting == 0


async def test_many_users_with_many_events_do_not_hold_up_one_with_few():
    async with run_mock(users=8, events_per_user=200, event_delay=0.05) as mock:
        users = [user.id for user in mock.store.users()]
        async with (
            observed(
                upstream_url=mock.url, upstream_concurrency=100, request_deadline=60
            ) as service,
            crowd(service.client) as clients,
        ):
            crowded = [
                asyncio.create_task(status_of(clients, f"/api/getEventsByUserId/{user}"))
                for user in users
            ]
            await until(lambda: service.bulkhead.waiting == 700)
            calls_before = mock.journal.counts["getEventById"]
            # A single call through the same queue, behind 700 that wait already.
            assert await status_of(clients, USERS) == 200
            assert mock.journal.counts["getEventById"] - calls_before < 350

            assert Counter(await asyncio.gather(*crowded)) == {200: 8}


async def test_who_waited_for_an_upstream_that_went_down_does_not_call_it(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.3))
    async with (
        observed(upstream_url=mock.url, upstream_concurrency=1, single_flight=False) as service,
        crowd(service.client) as clients,
    ):
        first = asyncio.create_task(status_of(clients, USERS))
        await until(lambda: service.bulkhead.in_flight == 1)
        waiting = [asyncio.create_task(status_of(clients, USERS)) for _ in range(5)]
        await until(lambda: service.bulkhead.waiting == 5)
        service.breakers["getUsers"].trip()

        assert await first == 200
        assert await asyncio.gather(*waiting) == [503] * 5
        assert mock.journal.counts["getUsers"] == 1
        assert service.bulkhead.in_flight == 0

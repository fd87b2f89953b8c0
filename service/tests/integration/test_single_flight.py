import asyncio
from collections import Counter

import pytest

from mock_upstream import Fault, MockUpstream, run_mock

from .crowd import crowd, status_of, until
from .observed_service import observed

pytestmark = pytest.mark.anyio

PATIENT = {"upstream_timeout": 20, "request_deadline": 40}


@pytest.mark.slow
async def test_a_thousand_requests_for_a_user_with_ten_events_make_eleven_upstream_calls():
    async with run_mock(users=3, events_per_user=10, event_delay=3) as mock:
        user = next(mock.store.users())
        path = f"/api/getEventsByUserId/{user.id}"
        async with (
            observed(upstream_url=mock.url, **PATIENT) as service,
            crowd(service.client) as clients,
        ):
            statuses = Counter(
                await asyncio.gather(*(status_of(clients, path) for _ in range(1000)))
            )

            assert statuses == {200: 1000}
            assert mock.journal.counts["getUserById"] == 1
            assert mock.journal.counts["getEventById"] == 10
            assert mock.journal.total.count == 11
            assert mock.journal.operations["getEventById"].max_in_flight == 10


async def test_requests_for_the_same_events_count_as_shared(mock: MockUpstream):
    mock.faults.set("getEventById", Fault(delay=1))
    async with observed(upstream_url=mock.url) as service, crowd(service.client) as clients:
        path = "/api/getEventsByUserId/3"
        await asyncio.gather(*(status_of(clients, path) for _ in range(10)))
        async with service.client.get("/metrics") as response:
            metrics = await response.text()

    assert 'single_flight_shared_total{operation="getUserById"} 9.0' in metrics
    assert mock.journal.total.count == 2


@pytest.mark.parametrize("query", ["", "?partial=true"])
async def test_after_a_write_nobody_gets_the_events_from_before_it(mock: MockUpstream, query: str):
    mock.faults.set("getEventById", Fault(delay=1))
    async with observed(upstream_url=mock.url) as service, crowd(service.client) as clients:
        path = f"/api/getEventsByUserId/3{query}"
        before = asyncio.create_task(status_of(clients, path))
        await until(lambda: mock.journal.operations["getEventById"].in_flight == 1)
        async with service.client.post(
            "/api/addEvent", json={"userId": "3", "title": "Encore"}
        ) as response:
            added = (await response.json())["id"]
        async with service.client.get(path) as response:
            assert added in await response.text()

        assert await before == 200


async def test_different_users_that_share_nothing_share_no_call():
    async with (
        run_mock(users=5, events_per_user=2, event_delay=0) as mock,
        observed(upstream_url=mock.url) as service,
    ):
        paths = [f"/api/getEventsByUserId/{user.id}" for user in mock.store.users()]
        await asyncio.gather(*(status_of(service.client, path) for path in paths))

        assert mock.journal.total.count == 5 * (1 + 2)


async def test_without_single_flight_every_request_makes_its_own_calls(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.2))
    async with observed(upstream_url=mock.url, single_flight=False) as service:
        await asyncio.gather(*(status_of(service.client, "/api/getUsers") for _ in range(20)))

        assert mock.journal.counts["getUsers"] == 20
        assert service.heard.shared_calls == 0


async def test_a_client_that_leaves_harms_no_other(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.5))
    async with (
        observed(upstream_url=mock.url, **PATIENT) as service,
        crowd(service.client) as clients,
    ):
        first = asyncio.create_task(status_of(clients, "/api/getUsers"))
        await until(lambda: mock.journal.total.in_flight == 1)
        others = [asyncio.create_task(status_of(clients, "/api/getUsers")) for _ in range(10)]
        await until(lambda: service.heard.shared_calls == 10)
        for leaver in (first, *others[:5]):
            leaver.cancel()

        assert await asyncio.gather(*others[5:]) == [200] * 5
        assert mock.journal.counts["getUsers"] == 1
        assert service.of("getUsers") == ["success"]


async def test_a_shared_call_ends_when_its_last_client_leaves(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=30))
    async with (
        observed(upstream_url=mock.url, **PATIENT) as service,
        crowd(service.client) as clients,
    ):
        waiting = [asyncio.create_task(status_of(clients, "/api/getUsers")) for _ in range(5)]
        await until(lambda: service.heard.shared_calls == 4)
        await until(lambda: mock.journal.total.in_flight == 1)
        for leaver in waiting:
            leaver.cancel()

        await until(lambda: service.heard.calls == [("getUsers", "cancelled")])
        assert service.of("getUsers") == ["neutral"]
        assert service.bulkhead.in_flight == 0


async def test_an_error_goes_to_all_waiting_callers_and_no_later_one(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(status=500, delay=0.3, first_n=1))
    async with observed(upstream_url=mock.url, retry_attempts=1, **PATIENT) as service:
        waited = await asyncio.gather(
            *(status_of(service.client, "/api/getUsers") for _ in range(20))
        )

        assert waited == [502] * 20
        assert await status_of(service.client, "/api/getUsers") == 200
        assert mock.journal.counts["getUsers"] == 2


async def test_a_read_after_a_write_joins_no_call_from_before_it(mock: MockUpstream):
    mock.faults.set("getUserById", Fault(delay=0.5, first_n=1))
    new = {"userId": "2", "title": "Tea"}
    async with observed(upstream_url=mock.url, **PATIENT) as service:
        before = asyncio.create_task(status_of(service.client, "/api/getEventsByUserId/2"))
        await until(lambda: mock.journal.counts["getUserById"] == 1)
        async with service.client.post("/api/addEvent", json=new) as reply:
            added = (await reply.json())["id"]
        async with service.client.get("/api/getEventsByUserId/2") as reply:
            assert [event["id"] for event in await reply.json()] == [added]

        assert not before.done()
        assert await before == 200

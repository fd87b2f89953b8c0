"""Retries as the upstream's journal sees them."""

import asyncio
import time
from collections import Counter

import pytest

from mock_upstream import Fault, MockUpstream, run_mock

from .crowd import status_of
from .observed_service import observed, problem

pytestmark = pytest.mark.anyio

BUDGET_FLOOR = 10


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, first_n=2),
        Fault(status=503, first_n=2),
        Fault(status=429, first_n=2),
        Fault(mode="reset", first_n=2),
        Fault(mode="truncate", first_n=2),
        Fault(mode="hang", first_n=1),
    ],
)
async def test_a_read_that_may_go_better_is_tried_again(mock: MockUpstream, fault: Fault):
    mock.faults.set("getUsers", fault)
    async with observed(upstream_url=mock.url, upstream_timeout=1.2) as service:
        assert await status_of(service.client, "/api/getUsers") == 200

        assert mock.journal.counts["getUsers"] == (fault.first_n or 0) + 1
        assert [attempt for _, attempt, _ in service.heard.retries] == [1, 2][: fault.first_n]


async def test_the_last_attempt_is_the_last(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(status=500))
    async with observed(upstream_url=mock.url, retry_attempts=4) as service:
        assert await status_of(service.client, "/api/getUsers") == 502

        assert mock.journal.counts["getUsers"] == 4
        assert service.heard.given_up == [("getUsers", 4, "attempts")]


async def test_each_attempt_counts_for_the_breaker(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(status=500))
    async with observed(upstream_url=mock.url) as service:
        await status_of(service.client, "/api/getUsers")

        assert service.of("getUsers") == ["failure"] * 3


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(status=400), 404),
        (Fault(status=404), 404),
        (Fault(status=302, headers={"Location": "/getUsers"}), 502),
        (Fault(body="no JSON"), 502),
        (Fault(body='{"id":[]}'), 502),
        (Fault(mode="garbage"), 502),
        (Fault(mode="oversize"), 502),
        (Fault(mode="empty"), 404),
    ],
)
async def test_a_reply_that_will_not_change_is_not_asked_for_again(
    mock: MockUpstream, fault: Fault, status: int
):
    mock.faults.set("getUserById", fault)
    async with observed(upstream_url=mock.url) as service:
        assert await status_of(service.client, "/api/getEventsByUserId/1") == status

        assert mock.journal.counts["getUserById"] == 1
        assert not service.heard.given_up


async def test_an_open_circuit_is_not_tried_again(mock: MockUpstream):
    async with observed(upstream_url=mock.url) as service:
        service.breakers["getUsers"].trip()
        async with service.client.get("/api/getUsers") as reply:
            status, slug, members = await problem(reply)

        assert (status, slug, members["breaker"]) == (503, "circuit-open", "getUsers")
        assert mock.journal.total.count == 0
        assert not service.heard.retries


async def test_a_retry_waits_for_as_long_as_the_upstream_asked(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(status=503, headers={"Retry-After": "1"}, first_n=1))
    async with observed(upstream_url=mock.url) as service:
        assert await status_of(service.client, "/api/getUsers") == 200

        first, second = mock.journal.entries
        assert second.started - first.started >= 1
        ((_, _, wait),) = service.heard.retries
        assert 1 <= wait <= 1.05


async def test_a_wait_beyond_the_deadline_is_not_begun(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(status=503, headers={"Retry-After": "6"}))
    async with observed(upstream_url=mock.url) as service:
        began = time.monotonic()
        async with service.client.get("/api/getUsers") as reply:
            assert reply.headers["Retry-After"] == "6"
            assert (await problem(reply))[:2] == (503, "upstream-unavailable")

        assert time.monotonic() - began < 3
        assert service.heard.given_up == [("getUsers", 1, "deadline")]


async def test_a_hanging_upstream_costs_a_request_its_deadline_and_three_calls(
    mock: MockUpstream,
):
    mock.faults.set("getUsers", Fault(mode="hang"))
    async with observed(
        upstream_url=mock.url, upstream_timeout=0.4, request_deadline=1.2
    ) as service:
        async with service.client.get("/api/getUsers") as reply:
            assert (await problem(reply))[:2] == (504, "upstream-timeout")

        # The last one is cut short by the request: how long it was quiet decides how it counts.
        *first, last = service.of("getUsers")
        assert first == ["failure", "failure"]
        outcomes = [outcome for _, outcome in service.heard.calls]
        assert outcomes[:2] == ["timeout"] * 2
        assert (last, outcomes[2]) in {("neutral", "cancelled"), ("failure", "timeout")}
        assert service.bulkhead.in_flight == 0


@pytest.mark.slow
async def test_under_steady_failures_retries_stay_within_a_tenth_of_the_requests():
    async with run_mock(users=400, events_per_user=0, seed=1) as mock:
        # Too few to open the breaker, and far more than the budget has retries for.
        mock.faults.set("getUserById", Fault(status=500, error_rate=0.35))
        async with observed(upstream_url=mock.url, request_deadline=60) as service:
            statuses: Counter[int] = Counter()
            for user in list(mock.store.users()):
                statuses[await status_of(service.client, f"/api/getEventsByUserId/{user.id}")] += 1

            calls = mock.journal.counts["getUserById"]
            retries = len(service.heard.retries)
            assert set(statuses) == {200, 502}
            assert calls == 400 + retries
            assert BUDGET_FLOOR < retries <= 0.1 * 400 + BUDGET_FLOOR
            assert any(reason == "budget" for _, _, reason in service.heard.given_up)


async def test_a_total_outage_costs_the_upstream_a_tenth_more_than_normal_load():
    async with run_mock(users=300, events_per_user=0) as mock:
        mock.faults.set("getUserById", Fault(status=500, delay=0.2))
        patient = {"upstream_timeout": 20, "request_deadline": 60}  # on a busy machine
        async with observed(upstream_url=mock.url, single_flight=False, **patient) as service:
            paths = [f"/api/getEventsByUserId/{user.id}" for user in mock.store.users()]
            statuses = Counter(
                await asyncio.gather(*(status_of(service.client, path) for path in paths))
            )

            assert statuses.keys() <= {502, 503}
            # One connection of the test's client serves three requests: the breaker sees the
            # first failures only when a hundred calls are under way.
            assert mock.journal.counts["getUserById"] <= 1.1 * 300 + BUDGET_FLOOR


async def test_a_write_is_never_tried_again(mock: MockUpstream):
    new = {"userId": "1", "title": "Tea"}
    faults = [
        Fault(mode="reset"),  # first, because the connection must be new
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "0"}),
        Fault(mode="truncate"),
        Fault(mode="hang"),
    ]
    async with observed(
        upstream_url=mock.url, upstream_timeout=0.2, breaker_failures=100
    ) as service:
        for number, fault in enumerate(faults, 1):
            mock.faults.set("addEvent", fault)
            async with service.client.post("/api/addEvent", json=new) as reply:
                assert reply.status >= 500

            assert mock.journal.counts["addEvent"] == number
        assert not service.heard.retries

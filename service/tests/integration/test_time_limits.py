"""Limits nest: what can be answered is answered before the deadline, and what is cut short counts
against the upstream only if that was quiet for long.
"""

import asyncio

import pytest

from halfopen import State
from mock_upstream import Fault, MockUpstream, run_mock

from .crowd import status_of, until
from .observed_service import Clock, observed, problem
from .raw_http import connection
from .scripted_upstream import by_path, replies, says, scripted, then_hang

pytestmark = pytest.mark.anyio

# An attempt counts as quiet after 0.36 s, and the last of a request is cut off at 0.9 s.
TIGHT = {"upstream_timeout": 0.9, "request_deadline": 1.0}
USER = b'{"id":"1","name":"Alice","events":["a","b","c"]}'
BY_USER = "/api/getEventsByUserId/1"
NEW = {"userId": "1", "title": "Tea"}


def event(event_id: str) -> bytes:
    return b'{"id":"%b","userId":"1","title":"t"}' % event_id.encode()


@pytest.mark.parametrize(("attempt", "deadline"), [(0.3, 1.0), (0.7, 1.0), (0.9, 1.0), (0.4, 0.5)])
async def test_an_event_that_hangs_costs_a_partial_reply_that_event_alone(
    attempt: float, deadline: float
):
    script = by_path(
        {
            "/getUserById": replies(USER),
            "/getEventById/a": replies(event("a")),
            "/getEventById/b": then_hang(),
            "/getEventById/c": replies(event("c")),
        }
    )
    async with (
        scripted(script) as upstream,
        observed(
            upstream_url=upstream.url, upstream_timeout=attempt, request_deadline=deadline
        ) as service,
        service.client.get(f"{BY_USER}?partial=true") as reply,
    ):
        body = await reply.json()

    assert reply.status == 200
    assert [each["id"] for each in body["events"]] == ["a", "c"]
    assert [(each["id"], each["status"]) for each in body["errors"]] == [("b", 504)]


async def test_events_that_wait_in_a_queue_for_too_long_are_errors_of_a_partial_reply():
    async with (
        run_mock(users=1, events_per_user=30, event_delay=0.2) as mock,
        observed(upstream_url=mock.url, upstream_concurrency=2, request_deadline=2.0) as service,
    ):
        user = next(mock.store.users())
        async with service.client.get(f"/api/getEventsByUserId/{user.id}?partial=true") as reply:
            body = await reply.json()
        verdicts = set(service.of("getEventById"))

    assert reply.status == 200
    assert body["events"]
    assert len(body["events"]) + len(body["errors"]) == 30
    assert {error["status"] for error in body["errors"]} == {504}
    assert "failure" not in verdicts, "waiting for each other is not the upstream's fault"


@pytest.mark.parametrize("operation", ["getUserById", "getEventById"])
async def test_a_stale_reply_is_served_before_the_deadline(mock: MockUpstream, operation: str):
    clock = Clock()
    async with observed(
        upstream_url=mock.url, cache_ttl=1, stale_if_error=600, clock=clock, **TIGHT
    ) as service:
        async with service.client.get(BY_USER) as reply:
            fresh = await reply.json()
        clock.now += 2
        mock.faults.set(operation, Fault(mode="hang"))
        async with service.client.get(BY_USER) as reply:
            assert (reply.status, await reply.json()) == (200, fresh)


async def test_an_attempt_that_the_deadline_cuts_short_fails_if_no_byte_came_for_long():
    async with (
        scripted(
            by_path({"/getUserById": says(0.3, USER_REPLY), "/getEventById": then_hang()})
        ) as upstream,
        observed(upstream_url=upstream.url, retry_attempts=1, **TIGHT) as service,
    ):
        assert await status_of(service.client, BY_USER) == 504

        assert service.of("getUserById") == ["success"]
        assert "failure" in service.of("getEventById")


async def test_an_attempt_that_the_deadline_cuts_short_soon_says_nothing():
    async with (
        scripted(
            by_path({"/getUserById": says(0.7, USER_REPLY), "/getEventById": then_hang()})
        ) as upstream,
        observed(upstream_url=upstream.url, retry_attempts=1, **TIGHT) as service,
    ):
        assert await status_of(service.client, BY_USER) == 504

        assert set(service.of("getEventById")) == {"neutral"}


USER_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(USER), USER)
BODY_OF_NEW = b'{"userId":"1","title":"Tea"}'
HEAD_OF_NEW = (
    b"POST /api/addEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY_OF_NEW)
)
GET_USERS = b"GET /api/getUsers HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(("patience", "verdict"), [(0.6, "failure"), (0.1, "neutral")])
async def test_a_client_that_leaves_tells_of_an_upstream_that_was_quiet_for_long(
    patience: float, verdict: str
):
    async with (
        scripted(then_hang()) as upstream,
        observed(upstream_url=upstream.url, upstream_timeout=1.0, request_deadline=30) as service,
    ):
        async with connection(service.client) as leaver:
            await leaver.send(GET_USERS)
            await until(lambda: upstream.in_flight == 1)
            await asyncio.sleep(patience)
        await until(lambda: service.of("getUsers"))

        assert service.of("getUsers") == [verdict]


async def test_clients_that_give_up_early_do_not_hide_an_upstream_that_is_down(mock: MockUpstream):
    mock.faults.set("addEvent", Fault(mode="hang"))
    async with observed(upstream_url=mock.url, upstream_timeout=1.0) as service:
        for number in range(1, 4):
            call = asyncio.create_task(add(service.client))
            await until(lambda: mock.journal.counts["addEvent"] == number)  # noqa: B023
            await asyncio.sleep(0.5)
            call.cancel()
            await until(lambda: len(service.of("addEvent")) == number)  # noqa: B023

        assert service.breakers["addEvent"].state is State.OPEN


async def test_writes_whose_bodies_come_late_do_not_hide_an_upstream_that_is_down(
    mock: MockUpstream,
):
    """What is left of the deadline is less than an attempt may take, and more than its quiet."""
    mock.faults.set("addEvent", Fault(mode="hang"))
    async with observed(upstream_url=mock.url, **TIGHT) as service:

        async def add_slowly() -> int:
            async with connection(service.client) as late:
                await late.send(HEAD_OF_NEW)
                await asyncio.sleep(0.3)
                await late.send(BODY_OF_NEW)
                return (await late.answer()).status

        assert await asyncio.gather(*(add_slowly() for _ in range(3))) == [504] * 3
        assert service.of("addEvent") == ["failure"] * 3
        assert service.breakers["addEvent"].state is State.OPEN


async def add(client) -> int:
    async with client.post("/api/addEvent", json=NEW) as reply:
        return reply.status


async def test_who_joins_a_call_may_go_on_when_its_first_caller_must_give_up(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(mode="hang", first_n=2))
    async with observed(
        upstream_url=mock.url, upstream_timeout=0.7, request_deadline=1.2
    ) as service:
        first = asyncio.create_task(status_of(service.client, "/api/getUsers"))
        # It has no time left for a third attempt.
        await until(lambda: mock.journal.counts["getUsers"] == 2)
        second = asyncio.create_task(status_of(service.client, "/api/getUsers"))

        assert [await first, await second] == [504, 200]
        assert service.heard.shared_calls == 1
        assert mock.journal.counts["getUsers"] == 3


async def test_waiting_for_a_slot_is_never_the_upstreams_failure(mock: MockUpstream):
    mock.faults.set("getUsers", Fault(mode="hang"))
    async with observed(
        upstream_url=mock.url, upstream_concurrency=1, breaker_failures=1, **TIGHT
    ) as service:
        reading = asyncio.create_task(status_of(service.client, "/api/getUsers"))
        await until(lambda: mock.journal.counts["getUsers"] == 1)
        assert await add(service.client) in {200, 504}
        await reading

        assert service.breakers["addEvent"].state is State.CLOSED
        assert "failure" not in service.of("addEvent")
        assert mock.journal.counts["addEvent"] <= 1


@pytest.mark.parametrize(
    ("asked", "lasts"), [(60, 60), (3, 10), (86_400, 600)], ids=["longer", "shorter", "bounded"]
)
async def test_an_open_circuit_leaves_the_upstream_alone_for_as_long_as_it_asked(
    mock: MockUpstream, asked: int, lasts: int
):
    clock = Clock()
    async with observed(upstream_url=mock.url, clock=clock) as service:
        for number in range(3):
            headers = {"Retry-After": str(asked)} if number == 0 else {}
            mock.faults.set("addEvent", Fault(status=503, headers=headers))
            assert await add(service.client) == 503
        mock.faults.clear("addEvent")
        mock.journal.clear()

        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert (await problem(reply))[1] == "circuit-open"
            assert reply.headers["Retry-After"] == str(lasts)
        clock.now += lasts - 0.1
        assert await add(service.client) == 503
        assert mock.journal.total.count == 0
        clock.now += 0.2
        assert await add(service.client) == 200


@pytest.mark.parametrize(("asked", "lasts"), [(60, 60), (11, 11), (86_400, 600)])
async def test_a_429_that_asks_for_longer_than_a_cooldown_opens_the_circuit_by_itself(
    mock: MockUpstream, asked: int, lasts: int
):
    clock = Clock()
    async with observed(upstream_url=mock.url, clock=clock) as service:
        refusal = Fault(status=429, headers={"Retry-After": str(asked)}, first_n=1)
        mock.faults.set("addEvent", refusal)
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            assert (await problem(reply))[1] == "upstream-unavailable"
            assert reply.headers["Retry-After"] == str(asked)

        for _ in range(2):
            async with service.client.post("/api/addEvent", json=NEW) as reply:
                assert (await problem(reply))[1] == "circuit-open"
                assert reply.headers["Retry-After"] == str(lasts)
        clock.now += lasts - 0.1
        assert await add(service.client) == 503
        assert mock.journal.counts["addEvent"] == 1
        clock.now += 0.2
        assert await add(service.client) == 200
        assert await status_of(service.client, "/api/getUsers") == 200


@pytest.mark.parametrize("fault", [
    Fault(status=429, headers={"Retry-After": "10"}),
    Fault(status=429),
    Fault(status=503, headers={"Retry-After": "60"}),
])  # fmt: skip
async def test_any_other_refusal_opens_the_circuit_the_third_time(mock: MockUpstream, fault: Fault):
    mock.faults.set("addEvent", fault)
    async with observed(upstream_url=mock.url, clock=Clock()) as service:
        for number in range(3):
            assert service.breakers["addEvent"].state is State.CLOSED
            assert await add(service.client) == 503
            assert mock.journal.counts["addEvent"] == number + 1

        assert service.breakers["addEvent"].state is State.OPEN

import asyncio
import json
import random
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_service.models import User
from mock_upstream import Fault, MockUpstream, run_mock

from .conftest import Start
from .raw_http import connection, eventually

pytestmark = pytest.mark.anyio


class HangingApi:
    """Never answers; says when it was asked, and when whoever asked gave up."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.dropped = asyncio.Event()

    async def users(self) -> list[User]:
        self.asked.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            self.dropped.set()

    events = user = event = add_event = users


GET_USERS = b"GET /api/getUsers HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_call_ends_when_its_only_client_leaves(start: Start):
    api = HangingApi()
    async with (
        start(app={"source": api}, request_deadline=60) as client,
        connection(client) as leaver,
    ):
        await leaver.send(GET_USERS)
        await api.asked.wait()

        leaver.close()

        await asyncio.wait_for(api.dropped.wait(), timeout=5)


async def test_a_client_that_ends_its_sending_side_counts_as_one_that_left(start: Start):
    """What the operations page says; HTTP clients and proxies do not do this."""
    api = HangingApi()
    async with (
        start(app={"source": api}, request_deadline=60) as client,
        connection(client) as half_closed,
    ):
        await half_closed.send(GET_USERS)
        await api.asked.wait()

        half_closed.end_sending()

        await asyncio.wait_for(api.dropped.wait(), timeout=5)
        assert await half_closed.closed()


async def test_nothing_is_retried_for_a_client_that_left(start: Start, mock: MockUpstream):
    mock.faults.set("getUsers", Fault(delay=0.2, status=500))
    async with start() as client, connection(client) as leaver:
        await leaver.send(GET_USERS)
        await eventually(lambda: mock.journal.counts["getUsers"] == 1)

        leaver.close()

        await eventually(lambda: mock.journal.operations["getUsers"].in_flight == 0)
        await asyncio.sleep(0.3)  # well past the longest backoff before a second attempt
        assert mock.journal.counts["getUsers"] == 1


async def test_a_client_that_leaves_does_not_take_the_others_answer_along(
    start: Start, mock: MockUpstream
):
    mock.faults.set("getUsers", Fault(delay=0.5))
    async with start() as client, connection(client) as leaver:
        await leaver.send(GET_USERS)
        await eventually(lambda: mock.journal.operations["getUsers"].in_flight == 1)
        staying = asyncio.create_task(client.get("/api/getUsers"))
        await asyncio.sleep(0.1)  # until the second request has joined the first

        leaver.close()

        assert (await staying).status == 200
        assert mock.journal.counts["getUsers"] == 1


async def test_replies_for_clients_that_left_reach_nobody_else(start: Start):
    chance = random.Random(1)
    async with (
        run_mock(users=20, events_per_user=3, event_delay=0.005) as mock,
        start(upstream_url=mock.url, upstream_concurrency=8) as client,
    ):
        events = {user.id: list(user.events) for user in mock.store.users()}
        mock.faults.set("getUserById", Fault(jitter=0.02))

        async def ask_one_after_the_other() -> int:
            answered = 0
            for _ in range(20):
                user = chance.choice(list(events))
                async with connection(client) as asker:
                    await asker.send(
                        f"GET /api/getEventsByUserId/{user} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                    )
                    if chance.random() < 0.5:
                        await asyncio.sleep(chance.uniform(0, 0.03))
                        continue
                    answer = await asker.answer()
                    found = [event["id"] for event in json.loads(answer.body)]
                    assert (answer.status, found) == (200, events[user])
                    answered += 1
            return answered

        answered = await asyncio.gather(*(ask_one_after_the_other() for _ in range(20)))

    assert 100 < sum(answered) < 300


async def test_a_request_whose_client_left_is_logged_as_499(start: Start, mock: MockUpstream):
    mock.faults.set("getUsers", Fault(mode="hang"))
    with capture_logs() as lines:
        async with (
            start(upstream_timeout=30, request_deadline=60) as client,
            connection(client) as leaver,
        ):
            await leaver.send(GET_USERS)
            await eventually(lambda: mock.journal.operations["getUsers"].in_flight == 1)

            leaver.close()

            await eventually(lambda: [line["status"] for line in requests(lines)] == [499])
            assert requests(lines)[0]["log_level"] == "info"


def requests(lines: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [line for line in lines if line["event"] == "request"]


async def test_a_body_that_breaks_off_is_the_clients_fault(start: Start):
    with capture_logs() as lines:
        async with start() as client, connection(client) as leaver:
            await leaver.send(
                b"POST /api/addEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b'Content-Length: 100\r\n\r\n{"userId":'
            )

            leaver.close()

            await eventually(lambda: [line["status"] for line in requests(lines)] == [400])


async def test_a_client_that_sends_its_body_late_is_still_served(start: Start):
    body = b'{"userId":"1","title":"Standup"}'
    async with start() as client, connection(client) as slow:
        await slow.send(
            b"POST /api/addEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        for byte in range(len(body)):
            await slow.send(body[byte : byte + 1])
            await asyncio.sleep(0.005)

        assert (await slow.answer()).status == 200


async def test_a_body_slower_than_a_request_may_take_ends_in_408(start: Start):
    async with start(request_deadline=0.2) as client, connection(client) as slow:
        await slow.send(
            b"POST /api/addEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"userId":'
        )

        answer = await slow.answer()

        assert answer.status == 408
        assert b"/problems/request-timeout" in answer.body
        assert await slow.closed()


async def test_a_connection_serves_another_request_after_a_slow_one(
    start: Start, mock: MockUpstream
):
    mock.faults.set("getUsers", Fault(delay=0.2))
    async with start() as client, connection(client) as regular:
        for _ in range(2):
            await regular.send(GET_USERS)
            assert (await regular.answer()).status == 200

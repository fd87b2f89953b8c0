"""A user's events, fetched all at once from a real mock over real sockets."""

import asyncio
import time

import pytest

from mock_upstream import Fault, run_mock

from .observed_service import observed, problem
from .scripted_upstream import by_path, replies, scripted, then_hang

pytestmark = pytest.mark.anyio


async def test_a_hundred_events_are_under_way_at_once_and_keep_their_order():
    async with (
        run_mock(users=1, events_per_user=100, event_delay=0.5) as mock,
        observed(upstream_url=mock.url) as service,
    ):
        user = next(mock.store.users())
        async with service.client.get(f"/api/getEventsByUserId/{user.id}") as reply:
            events = await reply.json()

        assert [event["id"] for event in events] == list(user.events)
        assert mock.journal.operations["getEventById"].max_in_flight == 100


async def test_a_user_without_events_has_an_empty_list():
    async with (
        run_mock(users=1, events_per_user=0) as mock,
        observed(upstream_url=mock.url) as service,
    ):
        user = next(mock.store.users())
        async with service.client.get(f"/api/getEventsByUserId/{user.id}") as reply:
            assert (reply.status, await reply.json()) == (200, [])
        async with service.client.get(f"/api/getEventsByUserId/{user.id}?partial=true") as reply:
            assert await reply.json() == {"events": [], "errors": [], "partial": False}


def event(event_id: str) -> bytes:
    return b'{"id":"%b","userId":"1","title":"t"}' % event_id.encode()


FIVE = b'{"id":"1","name":"Alice","events":["a","b","c","d","e"]}'
ONE_REFUSED = {
    "/getUserById": replies(FIVE),
    **{f"/getEventById/{name}": replies(event(name)) for name in "abde"},
    "/getEventById/c": replies(status="410 Gone"),
}


async def test_one_event_that_fails_fails_the_reply_and_ends_the_wait_for_the_others():
    hanging = {f"/getEventById/{name}": then_hang() for name in "abde"}
    async with (
        scripted(by_path({**ONE_REFUSED, **hanging})) as upstream,
        observed(upstream_url=upstream.url, upstream_timeout=30, request_deadline=60) as service,
    ):
        began = time.monotonic()
        async with service.client.get("/api/getEventsByUserId/1") as reply:
            status, slug, members = await problem(reply)

        assert (status, slug) == (502, "upstream-error")
        assert members["detail"] == "The upstream refused the call."
        assert time.monotonic() - began < 10
        assert sorted(outcome for operation, outcome in service.heard.calls[1:]) == [
            *["cancelled"] * 4,
            "refused",
        ]
        assert sorted(service.of("getEventById")) == [*["neutral"] * 4, "success"]
        assert service.bulkhead.in_flight == 0


async def test_a_partial_reply_has_the_events_in_order_and_a_problem_for_each_missing_one():
    async with (
        scripted(by_path(ONE_REFUSED)) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        async with service.client.get("/api/getEventsByUserId/1?partial=true") as reply:
            assert reply.status == 200
            body = await reply.json()

        assert [each["id"] for each in body["events"]] == ["a", "b", "d", "e"]
        assert body["partial"] is True
        (error,) = body["errors"]
        assert (error["id"], error["status"], error["type"]) == (
            "c",
            502,
            "/problems/upstream-error",
        )
        async with service.client.get("/metrics") as reply:
            assert "\npartial_replies_total 1.0" in await reply.text()


async def test_in_a_partial_reply_an_open_circuit_is_a_problem_of_each_event():
    async with (
        scripted(by_path(ONE_REFUSED)) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        service.breakers["getEventById"].trip()
        async with service.client.get("/api/getEventsByUserId/1?partial=true") as reply:
            body = await reply.json()

        assert [each["type"] for each in body["errors"]] == ["/problems/circuit-open"] * 5
        assert [call.path for call in upstream.calls] == ["/getUserById/1"]


async def test_a_user_that_the_upstream_does_not_know_is_not_found_in_a_partial_reply_too():
    async with (
        run_mock(event_delay=0) as mock,
        observed(upstream_url=mock.url) as service,
        service.client.get("/api/getEventsByUserId/99?partial=true") as reply,
    ):
        assert (await problem(reply))[:2] == (404, "user-not-found")


async def test_the_deadline_ends_the_whole_fan_out_and_blames_nobody():
    async with run_mock(users=1, events_per_user=20, event_delay=30) as mock:
        user = next(mock.store.users())
        mock.faults.set("getUserById", Fault(delay=0.3))
        async with observed(
            upstream_url=mock.url, upstream_timeout=0.49, request_deadline=0.5
        ) as service:
            # Not quiet for long: an attempt may take 0.49 s, and these begin after 0.3 s.
            async with service.client.get(f"/api/getEventsByUserId/{user.id}") as reply:
                assert (await problem(reply))[:2] == (504, "upstream-timeout")
            await asyncio.sleep(0)

            assert service.of("getEventById") == ["neutral"] * 20
            assert service.bulkhead.in_flight == service.bulkhead.waiting == 0

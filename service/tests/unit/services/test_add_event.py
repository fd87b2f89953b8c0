import asyncio

import pytest

from event_service.errors import IdempotencyKeyReused, UpstreamFailed
from event_service.models import Event, NewEvent, PartialEvents, User
from event_service.services.add_event import AddEvent

pytestmark = pytest.mark.anyio

TEA, COFFEE = NewEvent("1", "Tea"), NewEvent("1", "Coffee")


class Slow:
    """Takes events, and stores each when told to."""

    def __init__(self) -> None:
        self.taken: list[NewEvent] = []
        self.go_on = asyncio.Event()
        self.fails = False

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        self.taken.append(event)
        await self.go_on.wait()
        if self.fails:
            raise UpstreamFailed("addEvent", "It failed.", reason="test")
        return event_id

    async def users(self) -> list[User]:
        raise NotImplementedError

    async def events(self) -> list[Event]:
        raise NotImplementedError

    async def events_of(self, user_id: str) -> list[Event]:
        raise NotImplementedError

    async def partial_events_of(self, user_id: str) -> PartialEvents:
        raise NotImplementedError


def adding(source: Slow) -> AddEvent:
    return AddEvent(source, new_id=lambda: "new")


@pytest.mark.parametrize("other", [COFFEE, NewEvent("2", "Tea"), NewEvent("1", "Tea", "hot")])
async def test_a_key_under_way_is_not_taken_with_another_body(other: NewEvent):
    source = Slow()
    add_event = adding(source)
    first = asyncio.create_task(add_event.add(TEA, idempotency_key="k"))
    await asyncio.sleep(0)
    with pytest.raises(IdempotencyKeyReused):
        await add_event.add(other, idempotency_key="k")
    source.go_on.set()

    assert await first
    assert source.taken == [TEA]


async def test_the_same_body_may_be_tried_again_while_the_first_is_under_way():
    source = Slow()
    add_event = adding(source)
    tries = [asyncio.create_task(add_event.add(TEA, idempotency_key="k")) for _ in range(2)]
    await asyncio.sleep(0)
    tries[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(IdempotencyKeyReused):
        await add_event.add(COFFEE, idempotency_key="k")
    source.go_on.set()

    assert await tries[1]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_key_whose_event_is_over_is_the_upstreams_to_judge(*, fails: bool):
    source = Slow()
    source.fails = fails
    source.go_on.set()
    add_event = adding(source)
    await asyncio.gather(add_event.add(TEA, idempotency_key="k"), return_exceptions=True)
    await asyncio.gather(add_event.add(COFFEE, idempotency_key="k"), return_exceptions=True)

    assert source.taken == [TEA, COFFEE]


async def test_two_clients_with_the_same_key_do_not_meet():
    source = Slow()
    add_event = adding(source)
    tries = [
        asyncio.create_task(add_event.add(event, idempotency_key="1", api_key=api_key))
        for event, api_key in [(TEA, "ann"), (COFFEE, "bob")]
    ]
    source.go_on.set()

    assert len(set(await asyncio.gather(*tries))) == 2

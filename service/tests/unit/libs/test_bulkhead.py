import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.bulkhead import Bulkhead, BulkheadFull

pytestmark = pytest.mark.anyio


async def turns(count=5):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def counts(bulkhead):
    return bulkhead.in_flight, bulkhead.waiting


async def test_callers_within_the_limit_never_wait():
    bulkhead = Bulkhead(2, max_waiting=0)
    await bulkhead.acquire()

    with pytest.raises(StopIteration):
        bulkhead.acquire().send(None)

    assert counts(bulkhead) == (2, 0)
    assert bulkhead.limit == 2


async def test_a_caller_over_limit_and_queue_is_refused_at_once():
    bulkhead = Bulkhead(1, max_waiting=1)
    await bulkhead.acquire()
    waiting = asyncio.create_task(bulkhead.acquire())
    await turns()

    with pytest.raises(BulkheadFull):
        bulkhead.acquire().send(None)

    assert counts(bulkhead) == (1, 1)
    bulkhead.release()
    await waiting


async def test_slots_are_given_in_the_order_of_arrival():
    bulkhead = Bulkhead(1, max_waiting=10)
    order = []

    async def caller(name):
        await bulkhead.acquire()
        order.append(name)
        await asyncio.sleep(0)
        bulkhead.release()

    await asyncio.gather(*map(caller, "abcde"))

    assert order == list("abcde")
    assert counts(bulkhead) == (0, 0)


async def test_a_newcomer_does_not_overtake_the_queue():
    bulkhead = Bulkhead(1, max_waiting=1)
    await bulkhead.acquire()
    waiting = asyncio.create_task(bulkhead.acquire())
    await turns()

    bulkhead.release()
    newcomer = asyncio.create_task(bulkhead.acquire())
    await turns()

    assert waiting.done()
    assert not newcomer.done()
    assert counts(bulkhead) == (1, 1)
    bulkhead.release()
    await newcomer


async def test_those_who_wait_take_turns_however_many_callers_one_of_them_sends():
    bulkhead = Bulkhead(1, max_waiting=10)
    assert bulkhead.try_acquire()
    served = []

    async def call(who, number):
        await bulkhead.acquire(who)
        served.append(f"{who}{number}")
        bulkhead.release()

    waiting = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)]
    tasks = [asyncio.create_task(call(*each)) for each in waiting]
    await turns()
    bulkhead.release()
    await asyncio.gather(*tasks)

    assert served == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert counts(bulkhead) == (0, 0)


async def test_a_slot_is_taken_at_once_or_not_at_all():
    bulkhead = Bulkhead(1, max_waiting=10)
    assert [bulkhead.try_acquire(), bulkhead.try_acquire()] == [True, False]
    assert counts(bulkhead) == (1, 0)


async def test_a_caller_that_leaves_the_queue_makes_room_in_it():
    bulkhead = Bulkhead(1, max_waiting=1)
    await bulkhead.acquire()
    for _ in range(3):
        waiting = asyncio.create_task(bulkhead.acquire())
        await turns()
        waiting.cancel()
        await turns()
        assert waiting.cancelled()

    assert counts(bulkhead) == (1, 0)
    bulkhead.release()
    assert counts(bulkhead) == (0, 0)


async def test_a_slot_given_to_a_caller_cancelled_at_that_moment_goes_to_the_next():
    bulkhead = Bulkhead(1, max_waiting=2)
    await bulkhead.acquire()
    first, second = (asyncio.create_task(bulkhead.acquire()) for _ in range(2))
    await turns()

    bulkhead.release()
    first.cancel()
    await turns()

    assert first.cancelled()
    assert second.done()
    assert counts(bulkhead) == (1, 0)
    bulkhead.release()
    assert counts(bulkhead) == (0, 0)


async def test_a_slot_is_not_given_to_a_caller_cancelled_just_before():
    bulkhead = Bulkhead(1, max_waiting=2)
    await bulkhead.acquire()
    first, second = (asyncio.create_task(bulkhead.acquire()) for _ in range(2))
    await turns()

    first.cancel()
    bulkhead.release()
    await turns()

    assert first.cancelled()
    assert second.done()
    bulkhead.release()
    assert counts(bulkhead) == (0, 0)


async def test_a_waiting_caller_can_be_given_a_time_limit():
    bulkhead = Bulkhead(1, max_waiting=1)
    await bulkhead.acquire()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await bulkhead.acquire()

    assert counts(bulkhead) == (1, 0)


async def test_a_waiting_caller_that_is_closed_leaves_the_queue():
    bulkhead = Bulkhead(1, max_waiting=1)
    await bulkhead.acquire()
    waiting = bulkhead.acquire()
    waiting.send(None)
    waiting.close()

    assert counts(bulkhead) == (1, 0)


async def test_a_release_too_many_is_refused():
    bulkhead = Bulkhead(1, max_waiting=0)

    with pytest.raises(RuntimeError, match="released"):
        bulkhead.release()

    assert counts(bulkhead) == (0, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["cancel", "finish"]), st.integers(0, 12)),
        st.tuples(st.sampled_from(["arrive", "turn"]), st.just(0)),
    ),
    max_size=50,
)


class World:
    """Callers who come, stay until told to go, or are cancelled, at random moments."""

    def __init__(self, limit, max_waiting):
        self.bulkhead = Bulkhead(limit, max_waiting=max_waiting)
        self.inside = 0
        self.callers = []

    async def stay(self, may_go):
        await self.bulkhead.acquire()
        self.inside += 1
        try:
            assert self.inside <= self.bulkhead.limit
            await may_go.wait()
        finally:
            self.inside -= 1
            self.bulkhead.release()

    async def arrive(self, _):
        may_go = asyncio.Event()
        self.callers.append((asyncio.create_task(self.stay(may_go)), may_go))

    async def cancel(self, number):
        for caller, _ in self.callers[number : number + 1]:
            caller.cancel()

    async def finish(self, number):
        for _, may_go in self.callers[number : number + 1]:
            may_go.set()

    async def turn(self, _):
        await asyncio.sleep(0)


@given(limit=st.integers(1, 3), max_waiting=st.integers(0, 3), steps=STEPS)
def test_no_order_of_arrivals_and_cancellations_exceeds_the_limit_or_loses_a_slot(
    limit, max_waiting, steps
):
    async def journey():
        world = World(limit, max_waiting)
        bulkhead = world.bulkhead
        for action, argument in steps:
            await getattr(world, action)(argument)
            assert world.inside <= bulkhead.in_flight <= limit
            assert bulkhead.waiting <= max_waiting

        await turns(20)
        assert world.inside == bulkhead.in_flight
        assert bulkhead.waiting == 0 or bulkhead.in_flight == limit, "no slot idles while one waits"

        for _, may_go in world.callers:
            may_go.set()
        outcomes = await asyncio.gather(*(c for c, _ in world.callers), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {
            type(None),
            BulkheadFull,
            asyncio.CancelledError,
        }
        assert counts(bulkhead) == (0, 0)

    asyncio.run(journey())

import asyncio

import pytest

from event_service.libs.pace import Pace

pytestmark = pytest.mark.anyio


class Crowd:
    """Callers who begin at a pace and then take so many turns of the loop."""

    def __init__(self, pace, *, turns=0):
        self.pace = pace
        self.turns = turns
        self.begun = []
        self.active = self.most_active = 0

    async def caller(self, number):
        await self.pace.begin()
        self.begun.append(number)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.active -= 1


async def test_who_meets_no_crowd_does_not_wait():
    crowd = Crowd(Pace(3))
    for number in range(3):
        coroutine = crowd.caller(number)
        with pytest.raises(StopIteration):
            coroutine.send(None)
    assert crowd.begun == [0, 1, 2]


async def test_a_crowd_begins_in_its_order_so_many_in_a_turn():
    crowd = Crowd(Pace(3))
    callers = [asyncio.create_task(crowd.caller(number)) for number in range(8)]
    seen = []
    while not all(caller.done() for caller in callers):
        await asyncio.sleep(0)
        seen.append(len(crowd.begun))

    assert crowd.begun == list(range(8))
    steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    assert max(steps) == 3


async def test_a_crowd_is_worked_off_a_part_at_a_time():
    crowd = Crowd(Pace(3), turns=5)
    await asyncio.gather(*[crowd.caller(number) for number in range(100)])

    assert len(crowd.begun) == 100
    assert crowd.most_active <= 3 * (5 + 1)


async def test_a_newcomer_does_not_overtake_those_who_wait():
    crowd = Crowd(Pace(1))
    callers = [asyncio.create_task(crowd.caller(number)) for number in range(3)]
    await asyncio.sleep(0)
    callers.append(asyncio.create_task(crowd.caller("newcomer")))
    await asyncio.gather(*callers)

    assert crowd.begun == [0, 1, 2, "newcomer"]


async def test_a_caller_cancelled_in_the_queue_costs_the_others_no_turn():
    crowd = Crowd(Pace(1))
    callers = [asyncio.create_task(crowd.caller(number)) for number in range(4)]
    await asyncio.sleep(0)
    callers[1].cancel()
    callers[2].cancel()
    for _ in range(3):
        await asyncio.sleep(0)

    assert crowd.begun == [0, 3]


async def test_after_a_crowd_it_starts_afresh():
    crowd = Crowd(Pace(2))
    for _ in range(3):
        await asyncio.gather(*[crowd.caller(number) for number in range(5)])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(crowd.begun) == 15


def test_it_serves_one_event_loop_after_another():
    crowd = Crowd(Pace(1))
    for number in range(5):
        asyncio.run(crowd.caller(number))
    assert crowd.begun == [0, 1, 2, 3, 4]

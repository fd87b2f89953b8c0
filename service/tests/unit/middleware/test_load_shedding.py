import asyncio

import pytest

from event_service.errors import Overloaded
from event_service.middleware.load_shedding import PACE, LoadShedding
from event_service.signals import LoadShed

pytestmark = pytest.mark.anyio

TURNS = 4


SCOPE = {"type": "http", "path": "/api/getUsers"}


class Observer:
    def __init__(self):
        self.shed = 0

    def __call__(self, signal):
        assert signal == LoadShed()
        self.shed += 1


async def test_a_crowd_of_requests_is_worked_off_a_part_at_a_time():
    active = most_active = 0

    async def app(_scope, _receive, _send):
        nonlocal active, most_active
        active += 1
        most_active = max(most_active, active)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        active -= 1

    observer = Observer()
    shedding = LoadShedding(app, max_in_flight=5000, emit=observer)
    await asyncio.gather(*[shedding(SCOPE, None, None) for _ in range(5000)])

    assert most_active <= PACE * (TURNS + 1)
    assert observer.shed == 0


async def test_a_storm_of_refusals_leaves_time_for_what_is_in_flight():
    refused_at_the_end = []

    async def app(_scope, _receive, _send):
        for _ in range(TURNS):
            await asyncio.sleep(0)
        refused_at_the_end.append(observer.shed)
        await asyncio.Event().wait()

    observer = Observer()
    shedding = LoadShedding(app, max_in_flight=1, emit=observer)
    first, *others = [asyncio.create_task(shedding(SCOPE, None, None)) for _ in range(5000)]
    ends = await asyncio.gather(*others, return_exceptions=True)
    first.cancel()

    assert {type(end) for end in ends} == {Overloaded}
    assert observer.shed == 4999
    assert refused_at_the_end[0] <= PACE * (TURNS + 1)


async def test_who_waits_for_its_refusal_is_let_in_if_there_is_room_by_then():
    served = 0

    async def app(_scope, _receive, _send):
        nonlocal served
        await asyncio.sleep(0)
        served += 1

    observer = Observer()
    shedding = LoadShedding(app, max_in_flight=1, emit=observer)
    requests = [shedding(SCOPE, None, None) for _ in range(5 * PACE)]
    ends = await asyncio.gather(*requests, return_exceptions=True)

    assert ends[0] is None
    assert {type(end) for end in ends[1 : PACE + 1]} == {Overloaded}, "no room, and no wait"
    assert served > 1, "of those that waited"
    assert served + observer.shed == len(requests)

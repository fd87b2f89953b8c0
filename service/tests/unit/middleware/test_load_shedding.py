import asyncio

import pytest

from event_service.middleware.load_shedding import PACE, LoadShedding

pytestmark = pytest.mark.anyio

TURNS = 4


class Observer:
    def load_shed(self):
        raise AssertionError("nothing is to be shed")


async def test_a_crowd_of_requests_is_worked_off_a_part_at_a_time():
    active = most_active = 0

    async def app(_scope, _receive, _send):
        nonlocal active, most_active
        active += 1
        most_active = max(most_active, active)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        active -= 1

    shedding = LoadShedding(app, max_in_flight=5000, observer=Observer())
    scope = {"type": "http", "path": "/api/getUsers"}
    await asyncio.gather(*[shedding(scope, None, None) for _ in range(5000)])

    assert most_active <= PACE * (TURNS + 1)

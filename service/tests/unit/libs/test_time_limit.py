import asyncio
from dataclasses import dataclass
from math import inf

import pytest

from event_service.libs.time_limit import TICK, TimeLimits

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


@dataclass
class Deadline:
    latest: float


@pytest.mark.parametrize("seconds", [-1, 0, TICK / 2, 3 * TICK])
async def test_a_block_ends_at_its_limit(seconds: float):
    limits = TimeLimits()
    ends = now() + seconds
    limit = limits(ends)
    with pytest.raises(TimeoutError), limit:
        await forever()

    assert limit.expired
    assert now() >= ends


async def test_the_sooner_of_both_counts():
    limits = TimeLimits()
    with pytest.raises(TimeoutError), limits(inf, Deadline(0.0)):
        await forever()


async def test_a_limit_may_move_to_a_later_moment_meanwhile():
    limits = TimeLimits()
    moment = now() + TICK / 2
    deadline = Deadline(moment)
    asyncio.get_running_loop().call_soon(setattr, deadline, "latest", moment + 2 * TICK)
    with pytest.raises(TimeoutError), limits(inf, deadline):
        await forever()

    assert now() >= moment + 2 * TICK


async def test_a_block_that_is_over_in_time_is_left_alone():
    limits = TimeLimits()
    with limits(now() + TICK / 4) as limit:
        pass
    with limits(inf):
        pass
    await asyncio.sleep(2 * TICK)

    assert not limit.expired


async def test_a_cancellation_from_elsewhere_stays_one():
    limits = TimeLimits()

    async def limited() -> None:
        with limits(now() + 60):
            await forever()

    task = asyncio.create_task(limited())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_very_moment_of_the_limit_stays_one():
    limits = TimeLimits()

    async def limited() -> None:
        with limits(0.0):
            await forever()

    task = asyncio.create_task(limited())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_raised_as_it_is():
    limits = TimeLimits()
    limit = limits(now() + 60)
    with pytest.raises(TimeoutError, match="its own"), limit:
        raise TimeoutError("its own")
    assert not limit.expired


async def test_many_limits_end_each_at_its_own_moment():
    limits = TimeLimits()
    began = now()

    async def limited(seconds: float) -> float:
        try:
            with limits(began + seconds):
                await forever()
        except TimeoutError:
            pass
        return now() - began

    wanted = [n * TICK / 3 for n in range(20)]
    took = await asyncio.gather(*map(limited, wanted))
    assert all(late >= limit for late, limit in zip(took, wanted, strict=True))
    assert took == sorted(took)

import asyncio

import pytest
from starlette.routing import Router
from structlog.testing import capture_logs

from event_service.settings import Settings
from event_service.wiring.lifetimes import Lifetimes, lifespan

pytestmark = pytest.mark.anyio

SETTINGS = Settings(env="testing")


def alive(lifetimes: Lifetimes):
    return lifespan(SETTINGS, lifetimes, Router())


async def test_what_is_built_last_closes_first_after_the_background_tasks_have_ended():
    told: list[str] = []
    lifetimes = Lifetimes()

    def closer(name: str):
        async def close() -> None:
            told.append(f"{name} closed")

        return close

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            told.append("work ended")

    lifetimes.closers += [closer("first"), closer("second")]
    lifetimes.background.append(work)
    async with alive(lifetimes):
        await asyncio.sleep(0)
        assert told == []

    assert told == ["work ended", "second closed", "first closed"]


async def test_a_closer_that_fails_keeps_no_other_from_closing():
    closed = asyncio.Event()
    lifetimes = Lifetimes()

    async def close() -> None:
        closed.set()

    async def fail() -> None:
        raise OSError("it would not close")

    lifetimes.closers += [close, fail]
    with pytest.raises(OSError, match="it would not close"):
        async with alive(lifetimes):
            pass

    assert closed.is_set()


async def test_a_background_task_that_fails_is_told_and_ends_nothing_else():
    closed = asyncio.Event()
    lifetimes = Lifetimes()

    async def close() -> None:
        closed.set()

    async def work() -> None:
        raise ZeroDivisionError

    lifetimes.closers.append(close)
    lifetimes.background.append(work)
    with capture_logs() as lines:
        async with alive(lifetimes):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not closed.is_set()

    assert closed.is_set()
    assert "a background task failed" in [line["event"] for line in lines]

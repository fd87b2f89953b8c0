import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from event_service.telemetry.cells import Pages
from event_service.telemetry.log_level import LogLevel

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _root_level(monkeypatch):
    monkeypatch.setattr(logging.root, "level", logging.INFO)


class Polls:
    """Waits only as long as the test wants."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, _seconds: float) -> None:
        self.waiting.set()
        await self.over.wait()
        self.over.clear()

    async def next(self) -> None:
        self.waiting.clear()
        self.over.set()
        await self.waiting.wait()


@asynccontextmanager
async def following(level: LogLevel) -> AsyncIterator[None]:
    task = asyncio.create_task(level.follow())
    try:
        yield
    finally:
        task.cancel()


async def test_a_level_holds_from_now_on():
    level = LogLevel(None)
    assert level.get() == "info"
    level.set("debug")
    assert level.get() == "debug"
    assert logging.root.isEnabledFor(logging.DEBUG)


async def test_the_other_workers_follow():
    polls = Polls()
    word = Pages(1, lasting=bool).word
    here, there = LogLevel(word), LogLevel(word, sleep=polls)
    async with following(there):
        await polls.waiting.wait()
        here.set("error")
        # Both speak of this one process; put it back to see the other one act.
        logging.root.setLevel(logging.INFO)
        await polls.next()
        assert there.get() == "error"
        await polls.next()
        assert there.get() == "error"


async def test_a_worker_that_starts_later_follows_too():
    word = Pages(1, lasting=bool).word
    LogLevel(word).set("warning")
    logging.root.setLevel(logging.INFO)
    polls = Polls()
    late = LogLevel(word, sleep=polls)
    async with following(late):
        await polls.waiting.wait()
        assert late.get() == "warning"


async def test_a_worker_alone_looks_nowhere():
    polls = Polls()
    async with following(LogLevel(None, sleep=polls)):
        await asyncio.sleep(0)
    assert not polls.waiting.is_set()

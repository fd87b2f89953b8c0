import asyncio
import os
from itertools import count

import pytest
import structlog
from structlog.testing import capture_logs

from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.signals import GuardsBuilt, Signals
from event_service.telemetry.cells import Cells
from event_service.telemetry.vitals import LOOKS, PERIOD, Vitals

pytestmark = pytest.mark.anyio


class Done(Exception):
    pass


class Time:
    """Passes as the test says: each sleep takes its time and one of `delays` more."""

    def __init__(self, *delays: float) -> None:
        self.now = 0.0
        self._delays = list(delays)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if not self._delays:
            raise Done
        self.now += seconds + self._delays.pop(0)


def values(cells: Cells) -> dict[str, float]:
    return {row.metric: row.values[0] for page in cells.pages() for row in page.rows}


async def watched(vitals: Vitals) -> None:
    with pytest.raises(Done):
        await vitals.watch()


async def test_the_lag_is_the_worst_of_the_last_looks():
    cells = Cells()
    time = Time(0.1, 0.7, 0.2)
    await watched(Vitals(cells, clock=time.clock, sleep=time.sleep))
    assert values(cells)["event_loop_lag_seconds"] == pytest.approx(0.7)

    cells = Cells()
    time = Time(0.7, *[0.0] * LOOKS)
    await watched(Vitals(cells, clock=time.clock, sleep=time.sleep))
    assert values(cells)["event_loop_lag_seconds"] == pytest.approx(0)


async def test_one_or_two_peaks_are_not_a_steady_lag():
    time = Time(0.9, 0.8)
    vitals = Vitals(Cells(), clock=time.clock, sleep=time.sleep)
    await watched(vitals)
    assert vitals.steady_lag == 0

    time = Time(0.9, 0.2, 0.8, 0.1)
    vitals = Vitals(Cells(), clock=time.clock, sleep=time.sleep)
    await watched(vitals)
    assert vitals.steady_lag == pytest.approx(0.2)


async def test_a_loop_that_is_busy_lags():
    cells = Cells()

    async def sleep(_seconds: float) -> None:
        if next(turns):
            raise Done

    turns = count()
    ticks = iter([0.0, PERIOD + 0.25, 1.0])
    await watched(Vitals(cells, clock=lambda: next(ticks), sleep=sleep))
    assert values(cells)["event_loop_lag_seconds"] == pytest.approx(0.25)


async def test_lost_lines_and_upstream_calls_are_counted():
    cells = Cells()
    vitals = Vitals(cells, dropped=lambda: 7)
    signals = Signals()
    vitals.listen(signals)
    vitals.look()
    assert values(cells)["upstream_calls_in_flight"] == 0

    bulkhead = Bulkhead(1, max_waiting=5)
    signals.emit(GuardsBuilt({}, bulkhead, RetryBudget(0.1, floor=3, clock=lambda: 0)))
    await bulkhead.acquire()
    waiting = asyncio.create_task(bulkhead.acquire())
    await asyncio.sleep(0)
    vitals.look()
    waiting.cancel()

    found = values(cells)
    assert found["log_lines_dropped"] == 7
    assert (found["upstream_calls_in_flight"], found["upstream_calls_waiting"]) == (1, 1)
    assert found["retry_budget_remaining"] == 3


async def test_running_out_of_files_is_told_once_each_time():
    structlog.reset_defaults()
    lowest = os.dup(0)
    os.close(lowest)
    opened: list[int] = []

    async def sleep(_seconds: float) -> None:
        """Few are open, then too many for two looks, then few, then too many again."""
        turn = next(turns)
        if turn in {1, 4}:
            opened.extend(os.dup(0) for _ in range(10))
        elif turn == 3:
            while opened:
                os.close(opened.pop())
        elif turn == 5:
            raise Done

    turns = count()
    with capture_logs() as lines:
        await watched(Vitals(Cells(), most_files=lowest + 5, sleep=sleep))
    while opened:
        os.close(opened.pop())

    assert [line["event"] for line in lines] == ["out of file descriptors: connections wait"] * 2

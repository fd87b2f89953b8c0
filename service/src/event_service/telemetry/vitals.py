"""Samples the health of the process itself, for which there is no event."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.signals import AdmissionBuilt, GuardsBuilt, Signals
from event_service.telemetry.cells import Cells

PERIOD = 0.5
# Samples over which the shown lag is the maximum: about one scrape interval.
LOOKS = 30
# Lags this long or longer must occur so often before they count as steady.
STEADY = 3


class Vitals:
    """Samples the process every `PERIOD` seconds into `cells`.

    Event loop lag is how late the loop woke up, the maximum over the last `LOOKS` samples.
    `dropped` returns the number of log lines lost so far. `most_files` is how many files may be
    open before new connections have to wait; reaching it is logged once each time.
    """

    def __init__(
        self,
        cells: Cells,
        *,
        dropped: Callable[[], int] = lambda: 0,
        most_files: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._values = cells.values
        self._lag = cells.claim("event_loop_lag_seconds")
        self._lags: deque[float] = deque(maxlen=LOOKS)
        self._lost = cells.claim("log_lines_dropped")
        self._in_flight = cells.claim("upstream_calls_in_flight")
        self._waiting = cells.claim("upstream_calls_waiting")
        self._budget_left = cells.claim("retry_budget_remaining")
        self._max_in_flight = cells.claim("http_requests_in_flight_limit")
        self._limit = cells.claim("upstream_calls_limit")
        self._dropped = dropped
        self._most_files = most_files
        self._few_files = False
        self._clock = clock
        self._sleep = sleep
        self._bulkhead: Bulkhead | None = None
        self._budget: RetryBudget | None = None

    def listen(self, signals: Signals) -> None:
        signals.on(GuardsBuilt, self._guards_built)
        signals.on(AdmissionBuilt, self._admission_built)

    def _guards_built(self, signal: GuardsBuilt) -> None:
        self._bulkhead, self._budget = signal.bulkhead, signal.budget
        self._values[self._limit] = signal.bulkhead.limit

    def _admission_built(self, signal: AdmissionBuilt) -> None:
        self._values[self._max_in_flight] = signal.admission.max_in_flight

    @property
    def loop_lag(self) -> float:
        """The event loop's maximum recent lag, in seconds."""
        return self._values[self._lag]

    @property
    def steady_lag(self) -> float:
        """The lag reached at least `STEADY` times recently, in seconds: ignores single hiccups."""
        return sorted(self._lags)[-STEADY] if len(self._lags) >= STEADY else 0.0

    def look(self) -> None:
        """Take one sample now."""
        values = self._values
        values[self._lost] = self._dropped()
        if self._bulkhead is not None:
            values[self._in_flight] = self._bulkhead.in_flight
            values[self._waiting] = self._bulkhead.waiting
        if self._budget is not None:
            values[self._budget_left] = self._budget.remaining

    async def watch(self) -> None:
        """Sample every `PERIOD` seconds until cancelled."""
        while True:
            began = self._clock()
            await self._sleep(PERIOD)
            self._lags.append(max(0.0, self._clock() - began - PERIOD))
            self._values[self._lag] = max(self._lags)
            self.look()
            self._look_at_files()

    def _look_at_files(self) -> None:
        if self._most_files is None:
            return
        few = _lowest_free_descriptor() >= self._most_files
        if few and not self._few_files:
            structlog.get_logger().error(
                "out of file descriptors: connections wait", limit=self._most_files
            )
        self._few_files = few


def _lowest_free_descriptor() -> int:
    """About the number of open files: the kernel always hands out the lowest free number."""
    try:
        found = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 1 << 30
    os.close(found)
    return found

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

# Seconds from one look at all limits to the next.
TICK = 0.05


class TimeLimit:
    """Ends the block it stands around with TimeoutError, at `until` or when `sooner()` has come.

    Both are in seconds on the event loop's clock. `sooner` is asked again at its moment, so it may
    have moved to a later one meanwhile; it is asked in any context, so it must read no context
    variable. `until` may move, too. A cancellation from elsewhere stays one. `expired` tells the
    limit's TimeoutError from one that the block raised itself.
    """

    __slots__ = ("_cancelling", "_limits", "_sooner", "_task", "_timer", "expired", "until")

    def __init__(
        self, limits: "TimeLimits", until: float, sooner: Callable[[], float] | None
    ) -> None:
        self._limits = limits
        self.until = until
        self._sooner = sooner
        self._timer: asyncio.TimerHandle | None = None
        self.expired = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a time limit must be set within a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._limits.begin(self, loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        task = self._task
        # An error holds the frame that holds this limit: a cycle, if the limit held its task.
        del self._task
        if self._timer is None:
            self._limits.end(self)
        else:
            self._timer.cancel()
            self._timer = None
        if self.expired:
            others = task.uncancel() > self._cancelling
            if kind is asyncio.CancelledError and not others:
                raise TimeoutError

    def ends(self) -> float:
        """When, as far as is known now."""
        return self.until if self._sooner is None else min(self.until, self._sooner())

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a timer of its own."""
        self._timer = loop.call_at(self.ends(), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.time() < self.ends():
            self.arm(loop)
        else:
            self.expired = True
            self._task.cancel()


class TimeLimits:
    """Makes time limits, for one event loop.

    Most blocks are over long before their limit, and a timer for each would cost more than the
    rest. So all share one, which looks every `TICK` for those that end before the next look, and
    only these get timers of their own.
    """

    def __init__(self) -> None:
        self._far: set[TimeLimit] = set()
        self._ticking = False

    def __call__(self, until: float, *, sooner: Callable[[], float] | None = None) -> TimeLimit:
        return TimeLimit(self, until, sooner)

    def begin(self, limit: TimeLimit, loop: asyncio.AbstractEventLoop) -> None:
        if limit.ends() < loop.time() + TICK:
            limit.arm(loop)
            return
        self._far.add(limit)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK, self._tick, loop)

    def end(self, limit: TimeLimit) -> None:
        self._far.discard(limit)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        # Twice the time: the next tick may be late.
        near = loop.time() + 2 * TICK
        due = [limit for limit in self._far if limit.ends() < near]
        self._far.difference_update(due)
        for limit in due:
            limit.arm(loop)
        self._ticking = bool(self._far)
        if self._ticking:
            loop.call_later(TICK, self._tick, loop)

import asyncio
from types import TracebackType
from typing import Protocol, Self

# Seconds between two checks of all limits.
TICK = 0.05


class Bound(Protocol):
    """Something with a `latest` time, in seconds on the event loop's clock."""

    @property
    def latest(self) -> float: ...


class TimeLimit:
    """A context manager that ends its block with TimeoutError at `until` or at `bound.latest`.

    Both are in seconds on the event loop's clock, and may be moved to a later time meanwhile. Any
    other cancellation passes through. `expired` tells the limit's TimeoutError from one that the
    block raised itself.
    """

    __slots__ = ("_bound", "_cancelling", "_limits", "_task", "_timer", "expired", "until")

    def __init__(self, limits: "TimeLimits", until: float, bound: Bound | None = None) -> None:
        self._limits = limits
        self.until = until
        self._bound = bound
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
        # An error references its frame, and that this limit: do not close a cycle with the task.
        del self._task
        if self._timer is None:
            self._limits.far.discard(self)
        else:
            self._timer.cancel()
            self._timer = None
        if self.expired:
            others = task.uncancel() > self._cancelling
            if kind is asyncio.CancelledError and not others:
                raise TimeoutError

    def ends(self) -> float:
        """When the block must end, as known now."""
        until = self.until
        if self._bound is not None and self._bound.latest < until:
            return self._bound.latest
        return until

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set a timer for this limit alone."""
        self._timer = loop.call_at(self.ends(), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.time() < self.ends():
            self.arm(loop)
        else:
            self.expired = True
            self._task.cancel()


class TimeLimits:
    """Creates time limits, for one event loop.

    Most blocks end long before their limit, and a timer for each would cost more than everything
    else. So all share one timer, which checks every `TICK` for limits that end before the next
    check. Only these get their own timers.
    """

    def __init__(self) -> None:
        self.far: set[TimeLimit] = set()  # without their own timers
        self._ticking = False

    def __call__(self, until: float, bound: Bound | None = None) -> TimeLimit:
        return TimeLimit(self, until, bound)

    def begin(self, limit: TimeLimit, loop: asyncio.AbstractEventLoop) -> None:
        if limit.ends() < loop.time() + TICK:
            limit.arm(loop)
            return
        self.far.add(limit)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        # Twice the time: the next tick may be late.
        near = loop.time() + 2 * TICK
        due = [limit for limit in self.far if limit.ends() < near]
        self.far.difference_update(due)
        for limit in due:
            limit.arm(loop)
        self._ticking = bool(self.far)
        if self._ticking:
            loop.call_later(TICK, self._tick, loop)

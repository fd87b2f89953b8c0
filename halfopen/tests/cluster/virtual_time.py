"""An event loop on which time passes only when nothing else can happen."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class _Handle:
    """What is to run; asyncio's own handles cost most of a simulation's time."""

    __slots__ = ("_when", "args", "callback", "context")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when: float,
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self._when = when

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when


class VirtualTime(asyncio.BaseEventLoop):
    """`time()` jumps to the next timer whenever no callback is ready. There is no real I/O.

    What a callback raises ends the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._due: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._count = 0  # those of one moment keep their order

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(callback, args, context, self._now)
        self._due.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(callback, args, context, when)
        self._count += 1
        heappush(self._timers, (when, self._count, handle))
        return handle

    def _run_once(self) -> None:
        """What the base class calls again and again until it is stopped."""
        due, timers = self._due, self._timers
        while timers and (timers[0][0] <= self._now or timers[0][2].callback is None):
            due.append(heappop(timers)[2])
        if not due:
            if not timers:
                raise RuntimeError("everybody waits, and nothing is left that could happen")
            self._now = timers[0][0]
            due.append(heappop(timers)[2])
        for _ in range(len(due)):
            handle = due.popleft()
            if handle.callback is not None:
                handle.context.run(handle.callback, *handle.args)


def run(main: Any) -> Any:
    """Run the coroutine to its end in virtual time, starting at 0."""
    loop = VirtualTime()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


async def fan_out(fn: Callable[[K], Awaitable[V]], keys: Sequence[K], *, limit: int) -> list[V]:
    """Call `fn` for all keys at once, at most `limit` (1 or more) at a time; results in the order
    of the keys.

    The first error cancels the other calls and is raised itself, never in a group. The same goes
    for a cancellation, be it of this call or from within `fn`. No call is ever left running.
    """
    if len(keys) <= 1:
        return [await fn(key) for key in keys]
    return await _FanOut(fn, keys).run(limit)


async def fan_out_settled(
    fn: Callable[[K], Awaitable[V]], keys: Sequence[K], *, limit: int
) -> list[V | Exception]:
    """Like `fan_out`, with an error in the place of each result that failed."""

    async def settle(key: K) -> V | Exception:
        try:
            return await fn(key)
        except Exception as exc:
            return exc

    return await fan_out(settle, keys, limit=limit)


class _FanOut(Generic[K, V]):
    """As many workers as may run at once, each taking the next key until there is none.

    A TaskGroup would lose a cancellation that meets an error, take a worker cancelled from within
    for a success, wrap the error in a group, and cost half a microsecond a worker more.
    """

    def __init__(self, fn: Callable[[K], Awaitable[V]], keys: Sequence[K]) -> None:
        self._fn = fn
        self._todo = deque(enumerate(keys))
        self._results: dict[int, V] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def run(self, limit: int) -> list[V]:
        count = len(self._todo)
        loop = asyncio.get_running_loop()
        for _ in range(min(limit, count)):
            worker = asyncio.Task(self._work(), loop=loop, name="fan-out")
            worker.add_done_callback(self._on_end)
            self._workers.add(worker)
        cancelled = await self._all_ended()
        try:
            if cancelled is not None:
                raise cancelled
            if self._failed is not None:
                self._failed.result()
        finally:
            # An error's traceback holds this frame; the frame must not hold the error in turn.
            self._failed = cancelled = None
        return [self._results[index] for index in range(count)]

    async def _all_ended(self) -> asyncio.CancelledError | None:
        cancelled = None
        while self._workers:
            try:
                await self._over.wait()
            except asyncio.CancelledError as exc:
                cancelled = exc
                self._stop()
        return cancelled

    async def _work(self) -> None:
        while self._todo:
            index, key = self._todo.popleft()
            self._results[index] = await self._fn(key)

    def _on_end(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        # Asked of every worker: an exception that nobody looks at would be warned of.
        if (worker.cancelled() or worker.exception() is not None) and self._failed is None:
            self._failed = worker
            self._stop()
        if not self._workers:
            self._over.set()

    def _stop(self) -> None:
        self._todo.clear()
        for worker in self._workers:
            worker.cancel()

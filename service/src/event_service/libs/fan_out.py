import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


async def fan_out(fn: Callable[[K], Awaitable[V]], keys: Sequence[K], *, limit: int) -> list[V]:
    """Call `fn` for all keys at once, at most `limit` (1 or more) at a time; results in key order.

    The first error cancels the other calls and is raised as it is, never in a group. So is a
    cancellation, whether of this call or from within `fn`. No call is left running.
    """
    if not keys:
        return []
    if len(keys) == 1:
        return [await fn(keys[0])]
    return await _FanOut(fn, keys, limit).run()


async def fan_out_settled(
    fn: Callable[[K], Awaitable[V]], keys: Sequence[K], *, limit: int
) -> list[V | Exception]:
    """Like `fan_out`, but a failed call's error takes the place of its result."""

    async def settle(key: K) -> V | Exception:
        try:
            return await fn(key)
        except Exception as exc:
            return exc

    return await fan_out(settle, keys, limit=limit)


class _FanOut(Generic[K, V]):
    """Starts as many calls as may run concurrently, and the next one whenever one ends.

    A TaskGroup would lose a cancellation that coincides with an error, treat a call that cancelled
    itself as a success, wrap the error in a group, and need a task for each future.
    """

    def __init__(self, fn: Callable[[K], Awaitable[V]], keys: Sequence[K], limit: int) -> None:
        self._fn = fn
        self._todo: Iterator[K] = iter(keys)
        self._limit = limit
        self._calls: list[asyncio.Future[V]] = []  # in the order of the keys
        self._running: set[asyncio.Future[V]] = set()
        self._failed: asyncio.Future[V] | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()

    async def run(self) -> list[V]:
        self._begin_more()
        await self._all_ended()
        try:
            if self._cancelled is not None:
                raise self._cancelled
            if self._failed is not None:
                self._failed.result()
            return [call.result() for call in self._calls]
        finally:
            # An error's traceback refers to this frame, so this frame must not refer to the error.
            self._failed = self._cancelled = None
            self._calls.clear()

    async def _all_ended(self) -> None:
        while self._running:
            try:
                await self._over.wait()
            except asyncio.CancelledError as exc:
                self._cancelled = exc
                self._stop()

    def _begin_more(self) -> None:
        for key in self._todo:
            self._begin(key)
            if len(self._running) >= self._limit:
                break

    def _begin(self, key: K) -> None:
        call: asyncio.Future[V]
        try:
            begun = self._fn(key)
        except Exception as exc:
            call = self._loop.create_future()
            call.set_exception(exc)
        else:
            # Waiting for a future needs no task.
            call = begun if isinstance(begun, asyncio.Future) else asyncio.ensure_future(begun)
        self._calls.append(call)
        if call.done() and not call.cancelled() and call.exception() is None:
            return  # already done, for example from a cache: this needs no turn of the loop
        call.add_done_callback(self._on_end)
        self._running.add(call)

    def _on_end(self, call: asyncio.Future[V]) -> None:
        self._running.discard(call)
        # Retrieve every exception: asyncio warns about those that nobody retrieves.
        if (call.cancelled() or call.exception() is not None) and self._failed is None:
            self._failed = call
            self._stop()
        self._begin_more()
        if not self._running:
            self._over.set()

    def _stop(self) -> None:
        self._todo = iter(())
        for call in self._running:
            call.cancel()

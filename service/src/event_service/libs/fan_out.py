import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TypeVar

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
    results: dict[int, V] = {}
    todo = iter(enumerate(keys))

    async def work() -> None:
        for index, key in todo:
            results[index] = await fn(key)

    await _run_all([work() for _ in range(min(limit, len(keys)))])
    return [results[index] for index in range(len(keys))]


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


async def _run_all(workers: Sequence[Coroutine[None, None, None]]) -> None:
    # A TaskGroup would lose a cancellation that meets an error, take a worker cancelled from
    # within for a success, wrap the error in a group, and cost half a microsecond a worker more.
    loop = asyncio.get_running_loop()
    failed: asyncio.Task[None] | None = None
    cancelled: asyncio.CancelledError | None = None
    over: asyncio.Future[None] = loop.create_future()

    def on_end(task: asyncio.Task[None]) -> None:
        nonlocal failed
        running.discard(task)
        # Asked of every task: an exception that nobody looks at would be warned of.
        if (task.cancelled() or task.exception() is not None) and failed is None:
            failed = task
            _cancel(running)
        if not running and not over.done():
            over.set_result(None)

    running = {asyncio.Task(worker, loop=loop, name="fan-out") for worker in workers}
    for task in running:
        task.add_done_callback(on_end)
    while running:
        try:
            await over
        except asyncio.CancelledError as exc:
            cancelled = exc
            over = loop.create_future()
            _cancel(running)
    try:
        if cancelled is not None:
            raise cancelled
        if failed is not None:
            failed.result()
    finally:
        # An error's traceback holds this frame; the frame must not hold the error in turn.
        failed = cancelled = None


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()

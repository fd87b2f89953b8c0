import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


async def fan_out(fn: Callable[[K], Awaitable[V]], keys: Sequence[K], *, limit: int) -> list[V]:
    """Call `fn` for all keys at once, at most `limit` at a time; results in the order of keys.

    The first error cancels the other calls, waits until they have ended, and is raised itself.
    """
    if len(keys) <= 1:
        return [await fn(key) for key in keys]
    results: dict[int, V] = {}
    todo = iter(enumerate(keys))

    async def work() -> None:
        for index, key in todo:
            results[index] = await fn(key)

    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(limit, len(keys))):
                workers.create_task(work())
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
    if first is not None:
        try:
            raise first
        finally:
            del first
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

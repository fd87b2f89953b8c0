import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Batches the items that arrive during a commit into the next commit.

    `commit` gets the items in arrival order and returns a result for each; a result that is an
    exception is raised to that item's caller. What `commit` itself raises goes to every caller of
    the batch. `at_once` commits run at a time and none is delayed: a lone item is committed at
    once, and many items share the cost of one commit. Use from one event loop.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_batch: int = 512,
        at_once: int = 1,
    ) -> None:
        self._commit = commit
        self._max_batch = max_batch
        self._at_once = at_once
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: T) -> R:
        """The item's result, once its batch is committed.

        A caller that is cancelled before its batch begins withdraws its item; later, the item may
        be committed although nobody waits for it.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if len(self._tasks) < self._at_once:
            # The task ends when no item waits, so it outlives only callers that were cancelled
            # during the commit; `drain` waits for it.
            self._tasks.add(asyncio.create_task(self._run()))
        return await result

    async def drain(self) -> None:
        """Wait until everything submitted is committed or has failed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                await self._commit_batch(batch)
        except asyncio.CancelledError:
            # Together with the event loop.
            for _, result in self._waiting:
                result.cancel()
            self._waiting.clear()
            raise
        finally:
            # In the same step in which the queue is empty, so that the next item starts a new task.
            self._tasks -= {asyncio.current_task()}

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, result = self._waiting.popleft()
            if not result.done():
                batch.append((item, result))
        return batch

    async def _commit_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        outcomes: Sequence[R | Exception]
        try:
            outcomes = await self._commit([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, result in batch:
                result.cancel()
            raise
        except Exception as error:
            outcomes = [error] * len(batch)
        for (_, result), outcome in zip(batch, outcomes, strict=True):
            if result.done():
                continue
            if isinstance(outcome, Exception):
                result.set_exception(outcome)
            else:
                result.set_result(outcome)

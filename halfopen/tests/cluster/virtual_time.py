"""An event loop on which time passes only when nothing else can happen."""

import asyncio
from typing import Any


class VirtualTime(asyncio.BaseEventLoop):
    """`time()` jumps to the next timer whenever no callback is ready. There is no real I/O."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """What the base class calls to wait: instead of waiting, time passes."""
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is left that could happen")
        self._now += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Nobody waits in another thread."""


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

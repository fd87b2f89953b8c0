import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from event_service.telemetry.logs import current_level, set_level

POLL = 1.0


class LogLevel:
    """The level of the log, changed while the service runs, for all workers of a server.

    Only one of the workers hears of the change. It leaves word in the `folder` that they share;
    the others look there every `POLL` seconds, and whenever they start.
    """

    def __init__(
        self, folder: Path | None, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._word = folder / "log-level" if folder else None
        self._sleep = sleep

    def get(self) -> str:
        return current_level()

    def set(self, level: str) -> None:
        """`level` is one of those that EVENT_SERVICE_LOG_LEVEL takes."""
        self._change(level)
        if self._word is not None:
            # In one step, for who reads it meanwhile.
            new = self._word.with_suffix(".new")
            new.write_text(level)
            new.replace(self._word)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Do as the other workers do until the block ends."""
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow(self._word)) if self._word else None
            yield
            if following is not None:
                following.cancel()

    async def _follow(self, word: Path) -> None:
        while True:
            level = _read(word)
            if level:
                self._change(level)
            await self._sleep(POLL)

    def _change(self, level: str) -> None:
        old = current_level()
        if level != old:
            set_level(level)
            structlog.get_logger().warning("log level changed", old=old, new=level)


def _read(word: Path) -> str:
    try:
        return word.read_text()
    except FileNotFoundError:
        return ""

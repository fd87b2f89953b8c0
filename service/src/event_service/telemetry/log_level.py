import asyncio
from collections.abc import Awaitable, Callable
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

    async def follow(self) -> None:
        """Do as the other workers do, without end where there are others."""
        if self._word is None:
            return
        while True:
            level = _read(self._word)
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

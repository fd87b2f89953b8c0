import asyncio
from collections.abc import Awaitable, Callable

import structlog

from event_service.telemetry.logs import LEVELS, current_level, set_level

POLL = 1.0
_NAMES = {number: name for name, number in LEVELS.items()}


class LogLevel:
    """The level of the log, changed while the service runs, for all workers of a server.

    Only one of the workers hears of the change. It leaves it in the `word` that they share, a
    number that is 0 before; the others look there every `POLL` seconds, and whenever they start.
    """

    def __init__(
        self,
        word: "memoryview[float] | None",
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._word = word
        self._sleep = sleep

    def get(self) -> str:
        return current_level()

    def set(self, level: str) -> None:
        """`level` is one of those that EVENT_SERVICE_LOG_LEVEL takes."""
        self._change(level)
        if self._word is not None:
            self._word[0] = LEVELS[level]

    async def follow(self) -> None:
        """Do as the other workers do, without end where there are others."""
        if self._word is None:
            return
        while True:
            level = _NAMES.get(int(self._word[0]))
            if level is not None:
                self._change(level)
            await self._sleep(POLL)

    def _change(self, level: str) -> None:
        old = current_level()
        if level != old:
            set_level(level)
            structlog.get_logger().warning("log level changed", old=old, new=level)

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from event_service.telemetry.logs import LEVELS, current_level, set_level

POLL = 1.0
_NAMES = {number: name for name, number in LEVELS.items()}


class LogLevel:
    """The log level, changeable at run time for all workers of a server.

    The request to change it reaches one worker, which stores the level in the shared `word` (0
    until the first change). The others read it every `POLL` seconds and when they start.
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
        """`level` is a value of EVENT_SERVICE_LOG_LEVEL."""
        self._change(level)
        if self._word is not None:
            self._word[0] = LEVELS[level]

    async def follow(self) -> None:
        """Apply the level that other workers set, until cancelled."""
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

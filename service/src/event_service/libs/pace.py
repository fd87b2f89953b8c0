import asyncio
from collections import deque


class Pace:
    """Starts callers in arrival order, at most `limit` per turn of the event loop.

    Work in progress resumes in every turn, so the more there is, the slower new work starts. A
    burst is processed in parts, while its memory is still in the CPU's caches. Below the limit
    nobody waits. Use from one event loop only.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Wait for the caller's turn. A cancelled caller leaves no gap."""
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._begun < self._limit:
            self._begun += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _next_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)

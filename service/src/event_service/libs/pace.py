import asyncio
from collections import deque


class Pace:
    """Lets callers begin in the order of their arrival, at most `limit` in a turn of the loop.

    Work in progress is resumed in every turn, so the more of it there is, the slower new work
    begins. A burst is processed a part at a time instead of all at once, so that its memory is
    still in the processor's caches when it is next used. Below the limit nobody waits. Use from
    one event loop only.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Wait for the caller's turn. A caller that is cancelled while it waits leaves no gap."""
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

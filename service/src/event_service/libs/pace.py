import asyncio
from collections import deque


class Pace:
    """Lets callers begin in the order of their arrival, at most `limit` in a turn of the loop.

    What has begun is resumed in every turn, so the more work waits to be resumed, the slower new
    work begins. A crowd that comes at once is worked off a part at a time, whose memory is still
    in the processor's caches when it is touched again, and not all of it abreast. While there is
    less to do nobody waits. Use from one event loop only.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Wait for the caller's turn. Whoever is cancelled meanwhile leaves no gap."""
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

import asyncio
from collections import OrderedDict
from collections.abc import Hashable


class BulkheadFull(Exception):
    """The queue for a slot is full."""


class Bulkhead:
    """At most `limit` callers inside at once, at most `max_waiting` more in a queue.

    A freed slot goes straight to a waiting caller, so a newcomer cannot overtake. Callers wait in
    one line for each `who` (the request that they act for), and the lines take turns: however many
    callers one request has, another waits for at most one slot of each line. A cancelled caller
    leaves its line; a slot handed to it at that same moment goes to the next.

    The wait has no bound of its own: put a timeout around it. Use from one event loop only.
    """

    def __init__(self, limit: int, *, max_waiting: int) -> None:
        self.limit = limit
        self._max_waiting = max_waiting
        self._in_flight = 0
        self._waiting = 0
        self._lines: OrderedDict[Hashable, OrderedDict[asyncio.Future[None], None]] = OrderedDict()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return self._waiting

    def try_acquire(self) -> bool:
        """Take a slot if one is free."""
        if self._in_flight < self.limit:
            self._in_flight += 1
            return True
        return False

    async def acquire(self, who: Hashable = None) -> None:
        """Take a slot, at once if one is free; `BulkheadFull` at once if the queue is full."""
        if self.try_acquire():
            return
        if self._waiting >= self._max_waiting:
            raise BulkheadFull
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(who, OrderedDict())[turn] = None
        self._waiting += 1
        try:
            await turn
        except BaseException:
            self._leave(who, turn)
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give the slot back: exactly once for every `acquire` that returned."""
        if self._in_flight == 0:
            raise RuntimeError("A slot was released that nobody holds.")
        while self._lines:
            who, line = next(iter(self._lines.items()))
            turn = next(iter(line))
            self._leave(who, turn)
            if line:
                self._lines.move_to_end(who)
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1

    def _leave(self, who: Hashable, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(who)
        if line is None or turn not in line:
            return
        del line[turn]
        self._waiting -= 1
        if not line:
            del self._lines[who]

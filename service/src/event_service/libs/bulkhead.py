import asyncio
from collections import OrderedDict
from collections.abc import Hashable


class BulkheadFull(Exception):
    """The queue for a slot is full."""


class Bulkhead:
    """At most `limit` callers inside at once, at most `max_waiting` more in a queue.

    A freed slot goes straight to a waiting caller, so a newcomer cannot overtake. Each `who` (the
    request that a caller acts for) has a queue of its own, and the queues take turns: a request
    with many callers does not starve the others. A cancelled caller leaves its queue; a slot handed
    to it at that moment goes to the next caller.

    The wait has no time limit of its own: put a timeout around it. Use from one event loop only.
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
        """Take a slot, waiting for one if need be. Raises BulkheadFull if the queue is full."""
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
        """Return the slot: exactly once for every `acquire` that returned."""
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

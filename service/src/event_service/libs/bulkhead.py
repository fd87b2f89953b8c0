import asyncio
from collections import OrderedDict


class BulkheadFull(Exception):
    """As many callers wait for a slot as may."""


class Bulkhead:
    """At most `limit` callers inside at once, at most `max_waiting` more in a queue.

    Slots are given in the order of arrival: a slot that becomes free while callers wait goes
    straight to the first of them, so a newcomer cannot overtake. A caller that is cancelled in
    the queue leaves no hole, and a slot handed to it at that same moment goes to the next.

    The wait has no bound of its own: put a timeout around it. Use from one event loop only.
    """

    def __init__(self, limit: int, *, max_waiting: int) -> None:
        self.limit = limit
        self._max_waiting = max_waiting
        self._in_flight = 0
        self._queue: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def acquire(self) -> None:
        """Take a slot, at once if one is free; `BulkheadFull` at once if the queue is full."""
        if self._in_flight < self.limit:
            self._in_flight += 1
            return
        if len(self._queue) >= self._max_waiting:
            raise BulkheadFull
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = None
        try:
            await turn
        except BaseException:
            self._queue.pop(turn, None)
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give the slot back: exactly once for every `acquire` that returned."""
        if self._in_flight == 0:
            raise RuntimeError("A slot was released that nobody holds.")
        while self._queue:
            turn, _ = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1

    __aenter__ = acquire

    async def __aexit__(self, *_: object) -> None:
        self.release()

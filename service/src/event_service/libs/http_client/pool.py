import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from event_service.libs.http_client.addresses import Addresses
from event_service.libs.http_client.connection import Connection
from event_service.libs.http_client.dial import Dial
from event_service.libs.http_client.errors import ClientClosed, ConnectFailed
from event_service.libs.http_client.reply import Watch

# Seconds. A timer that fires slightly early would find nothing to do, and be set again at once.
_SLACK = 0.001
# Seconds for a request to reach the peer before the peer closes the connection.
_MARGIN = 1.0


class Pool:
    """The connections to one peer, at most `limit`; the most recently used one is taken first.

    Callers wait in turn for a free connection or for room for a new one. A connection is closed
    when it has been idle for `keep_alive` seconds, or for nearly as long as the peer keeps it open,
    or when its call has ended and the peer's name no longer has its address. Use from one event
    loop only.
    """

    def __init__(
        self,
        dial: Dial,
        addresses: Addresses,
        *,
        limit: int,
        keep_alive: float,
        clock: Callable[[], float],
    ) -> None:
        self._dial = dial
        self._addresses = addresses
        addresses.on_moved = self._moved
        self._limit = limit
        self._keep_alive = keep_alive
        self._clock = clock
        self._closed = False
        self._making = 0  # connections that callers are opening, or may open
        self._connections: dict[Connection, None] = {}
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._hosts: frozenset[str] | None = None  # the peer's addresses; None: unknown yet
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = inf
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Number of connections, including those being opened."""
        return len(self._connections) + self._making

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self) -> Connection | None:
        """An idle connection, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.gone and self._clock() < connection.good_until:
                return connection
            connection.close()
        return None

    async def wait(self, *, fresh: bool, watch: Watch | None) -> Connection | None:
        """Wait for a free connection. None: the caller may open one, and must call `make`.

        With `fresh`, it never returns an idle connection. Raises ClientClosed. The wait has no
        time limit of its own; a cancelled caller gives up its turn.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        if not fresh and (connection := self.take()) is not None:
            return connection
        if not self._waiting and self.open < self._limit:
            self._making += 1
            return None
        connection = self._idle.pop(0) if self._idle else await self._turn(watch)
        if connection is None or (connection.usable and not fresh):
            return connection
        # Counted before the close, which would let another caller open one.
        self._making += 1
        connection.close()
        return None

    async def make(self, within: float) -> Connection:
        """Open a connection, `within` so many seconds. Raises what `Dial.connect` raises."""
        try:
            connection = await self._dial.connect(self._build, within)
            if self._closed or not connection.usable:
                connection.close()
                raise ConnectFailed("the connection was closed before it could be used")
            self._connections[connection] = None
            return connection
        finally:
            self._making -= 1
            self._admit()

    async def close(self) -> None:
        """Close all connections; callers that use one or wait for one get an error."""
        self._closed = True
        for timer in (self._alarm, self._sweep):
            if timer is not None:
                timer.cancel()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(ClientClosed("the client is closed"))
        for connection in list(self._connections):
            connection.close()
        await self._addresses.close()
        await asyncio.sleep(0)  # transports report their end in the loop's next turn

    # Called by connections.

    def on_started(self, deadline: float) -> None:
        if deadline < self._alarm_at:
            self._set_alarm(deadline)

    def on_free(self, connection: Connection) -> None:
        now = connection.idle_since
        if now >= self._addresses.stale_at:
            self._addresses.refresh()
        if self._hosts is not None and connection.address not in self._hosts:
            connection.close()
            return
        hint = connection.keep_alive_hint
        idle = self._keep_alive
        if hint is not None:
            idle = min(idle, hint - min(_MARGIN, hint / 2))
        connection.good_until = now + idle
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(max(idle, 0.0), self._sweep_idle)

    def on_gone(self, connection: Connection) -> None:
        if connection in self._connections:  # otherwise it was never added, or was removed before
            del self._connections[connection]
            if connection in self._idle:
                self._idle.remove(connection)
            self._admit()

    def _moved(self, hosts: frozenset[str]) -> None:
        """The peer's name now has these addresses."""
        self._hosts = hosts
        for connection in [each for each in self._idle if each.address not in hosts]:
            connection.close()

    def _build(self) -> Connection:
        return Connection(self, self._clock)

    async def _turn(self, watch: Watch | None) -> Connection | None:
        """Wait for the caller's turn: a connection, or None if it may open one."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if watch is not None:
            watch.waiting()
        try:
            given = await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())
            raise
        if watch is not None:
            watch.waited()
        return given

    def _give_back(self, connection: Connection | None) -> None:
        if connection is None:
            self._making -= 1
            self._admit()
        elif connection.usable:
            self.on_free(connection)

    def _admit(self) -> None:
        """Let waiting callers open connections while there is room."""
        while self._waiting and self.open < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._making += 1
                turn.set_result(None)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().call_later(
            max(at - self._clock(), 0.0) + _SLACK, self._expire
        )

    def _expire(self) -> None:
        # One timer for all calls: most have the same limit, so it fires at most a few times per
        # second, however many calls there are.
        self._alarm, self._alarm_at = None, inf
        now = self._clock()
        for connection in list(self._connections):
            deadline = connection.deadline
            if deadline is None:
                continue
            if deadline <= now:
                connection.expire()
            elif deadline < self._alarm_at:
                self._alarm_at = deadline
        if self._alarm_at < inf:
            self._set_alarm(self._alarm_at)

    def _sweep_idle(self) -> None:
        self._sweep = None
        now = self._clock()
        for connection in [each for each in self._idle if each.good_until <= now]:
            connection.close()
        if self._idle:
            soonest = min(connection.good_until for connection in self._idle)
            self._sweep = asyncio.get_running_loop().call_later(
                max(soonest - now, 0.0) + _SLACK, self._sweep_idle
            )

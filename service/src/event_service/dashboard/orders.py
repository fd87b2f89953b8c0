"""What operators order the breakers to do, in all workers of the server."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec
import structlog

from event_service.libs.board import Board
from halfopen import CircuitBreaker, Isolation

Action = Literal["trip", "isolate", "release", "reset"]
# How soon the other workers do as they are told, in seconds.
POLL = 0.2
# Orders that a worker keeps on show: a worker that starts later reads what is in force.
KEPT = 40
SIZE = 64 * 1024


class Order(msgspec.Struct, frozen=True):
    """`at` is in nanoseconds since 1970 and orders what several workers were told; `seconds` is
    for how long, None for as long as usual.
    """

    at: int
    breaker: str
    action: Action
    seconds: float | None = None


_decode = msgspec.json.Decoder(list[Order]).decode
_encode = msgspec.json.Encoder().encode


class Orders:
    """Carries out what operators order, here and in the other workers.

    The worker that is asked does it at once and puts it up on the board; the others look there.
    Operators isolate a breaker once at most, however often they ask.
    """

    def __init__(
        self,
        breakers: Mapping[str, CircuitBreaker],
        *,
        board: Board | None = None,
        place: int = 0,
        now: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`board` is None where there is one worker."""
        self._breakers = breakers
        self._board = board
        self._place = place
        self._now = now
        self._sleep = sleep
        self._isolations: dict[str, Isolation] = {}
        self._given: deque[Order] = deque(maxlen=KEPT)
        self._done: set[int] = set()

    def __contains__(self, breaker: str) -> bool:
        return breaker in self._breakers

    def give(self, breaker: str, action: Action, seconds: float | None = None) -> None:
        order = Order(self._now(), breaker, action, seconds)
        self._carry_out(order)
        self._given.append(order)
        if self._board is not None:
            self._board.put(self._place, _encode(list(self._given)))

    async def follow(self) -> None:
        """Do as the other workers were told, without end where there are others."""
        if self._board is None:
            return
        self._adopt(self._board)
        while True:
            await self._sleep(POLL)
            for order in self._shown(self._board):
                if order.at not in self._done:
                    self._carry_out(order)

    def _adopt(self, board: Board) -> None:
        """A worker that starts finds old orders: only an isolation is still in force."""
        # The place may have been another's, whose orders are still to be shown.
        for post in board.read():
            if post.place == self._place:
                self._given.extend(_decode(post.text))
        last: dict[str, Order] = {}
        for order in self._shown(board):
            self._done.add(order.at)
            last[order.breaker] = order
        for order in last.values():
            if order.action == "isolate":
                self._carry_out(order)

    def _shown(self, board: Board) -> list[Order]:
        found = [order for post in board.read() for order in _decode(post.text)]
        return sorted(found, key=lambda order: order.at)

    def _carry_out(self, order: Order) -> None:
        self._done.add(order.at)
        name = order.breaker
        if name not in self._breakers:
            return
        breaker = self._breakers[name]
        match order.action:
            case "trip":
                breaker.trip(order.seconds)
            case "isolate":
                if name not in self._isolations:
                    self._isolations[name] = breaker.isolate()
                if order.seconds is not None:
                    self._release_later(name, order.seconds)
            case "release":
                self._release(name)
            case "reset":
                self._isolations.pop(name, None)
                breaker.reset()

    def _release_later(self, name: str, seconds: float) -> None:
        isolation = self._isolations[name]

        def release() -> None:
            if self._isolations.get(name) is isolation:
                self._release(name)
                structlog.get_logger().info("isolation ended by itself", breaker=name)

        asyncio.get_running_loop().call_later(seconds, release)

    def _release(self, name: str) -> None:
        if (isolation := self._isolations.pop(name, None)) is not None:
            isolation.release()

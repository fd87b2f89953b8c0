"""Operators' orders to the breakers, carried out in all workers of the server."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple, Protocol

import msgspec
import structlog

from event_service.libs.board import Board
from halfopen import CircuitBreaker, Isolation

Action = Literal["trip", "isolate", "release", "reset"]
# Seconds between two checks for orders given in other workers.
POLL = 0.2
# Orders that a worker leaves on the board, so that a worker that starts later can read them.
KEPT = 40
SIZE = 64 * 1024


class Order(msgspec.Struct, frozen=True):
    """`at`, in Unix nanoseconds, gives the sequence of orders from several workers. `seconds` is
    the duration; None means the usual one.
    """

    at: int
    breaker: str
    action: Action
    seconds: float | None = None


class Timer(Protocol):
    def cancel(self) -> None: ...


class _Release(NamedTuple):
    at: float  # Unix seconds
    timer: Timer


_decode = msgspec.json.Decoder(list[Order]).decode
_encode = msgspec.json.Encoder().encode


class Orders:
    """Carries out operators' orders, in this worker and in the others.

    The worker that receives an order carries it out at once and posts it to the board, which the
    others poll. Isolating an isolated breaker again only changes its end.
    """

    def __init__(
        self,
        breakers: Mapping[str, CircuitBreaker],
        *,
        board: Board | None = None,
        place: int = 0,
        now: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        """`board` is None with one worker. `later` calls a function after a number of seconds; by
        default it uses the running event loop.
        """
        self._breakers = breakers
        self._board = board
        self._place = place
        self._now = now
        self._sleep = sleep
        self._later = later
        self._isolations: dict[str, Isolation] = {}
        self._releases: dict[str, _Release] = {}
        self._given: deque[Order] = deque(maxlen=KEPT)
        self._done: set[int] = set()

    def __contains__(self, breaker: str) -> bool:
        return breaker in self._breakers

    def release_at(self, breaker: str) -> float | None:
        """When the breaker's isolation ends automatically, in Unix seconds, or None."""
        release = self._releases.get(breaker)
        return None if release is None else release.at

    def give(self, breaker: str, action: Action, seconds: float | None = None) -> None:
        order = Order(self._now(), breaker, action, seconds)
        self._carry_out(order)
        self._given.append(order)
        if self._board is not None:
            self._board.put(self._place, _encode(list(self._given)))

    async def follow(self) -> None:
        """Carry out the orders of other workers, forever. Returns at once if there are none."""
        if self._board is None:
            return
        self._adopt(self._board)
        while True:
            await self._sleep(POLL)
            for order in self._shown(self._board):
                if order.at not in self._done:
                    self._carry_out(order)

    def _adopt(self, board: Board) -> None:
        """Read the orders from before this worker started; only an isolation still applies."""
        # An earlier worker may have had our place on the board: keep its orders there.
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
                self._isolate(name, order)
            case "release":
                self._release(name)
            case "reset":
                self._forget_release(name)
                self._isolations.pop(name, None)
                breaker.reset()

    def _isolate(self, name: str, order: Order) -> None:
        """Isolate until the end that was ordered last, or until released."""
        self._forget_release(name)
        if order.seconds is not None:
            ends = order.at / 1e9 + order.seconds
            left = ends - self._now() / 1e9
            if left <= 0:
                return  # an old order, found at the start, that has ended
            later = self._later or asyncio.get_running_loop().call_later
            timer = later(left, partial(self._release_by_itself, name))
            self._releases[name] = _Release(ends, timer)
        if name not in self._isolations:
            self._isolations[name] = self._breakers[name].isolate()

    def _release_by_itself(self, name: str) -> None:
        self._release(name)
        structlog.get_logger().info("isolation ended by itself", breaker=name)

    def _forget_release(self, name: str) -> None:
        if (release := self._releases.pop(name, None)) is not None:
            release.timer.cancel()

    def _release(self, name: str) -> None:
        self._forget_release(name)
        if (isolation := self._isolations.pop(name, None)) is not None:
            isolation.release()

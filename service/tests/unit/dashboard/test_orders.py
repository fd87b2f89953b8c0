import asyncio
from typing import ClassVar

import pytest

from event_service.dashboard.orders import SIZE, Orders
from event_service.libs.board import Board
from halfopen import CircuitBreaker, State

pytestmark = pytest.mark.anyio


class Polls:
    """Lets a worker look at the board when the test says so."""

    def __init__(self) -> None:
        self._turn = asyncio.Event()

    async def __call__(self, _seconds: float) -> None:
        await self._turn.wait()
        self._turn.clear()

    async def look(self) -> None:
        self._turn.set()
        for _ in range(5):
            await asyncio.sleep(0)


class Worker:
    following: ClassVar[list[asyncio.Task[None]]] = []

    def __init__(self, board: Board, place: int) -> None:
        self.breaker = CircuitBreaker("addEvent")
        self.polls = Polls()
        self.orders = Orders({"addEvent": self.breaker}, board=board, place=place, sleep=self.polls)
        self.following.append(asyncio.create_task(self.orders.follow()))

    async def started(self) -> "Worker":
        await asyncio.sleep(0)
        return self


@pytest.fixture
async def board():
    yield Board(4, size=SIZE)
    for task in Worker.following:
        task.cancel()
    Worker.following.clear()


async def test_what_one_worker_is_ordered_all_do(board):
    here, there = await Worker(board, 0).started(), await Worker(board, 1).started()

    here.orders.give("addEvent", "isolate")
    await there.polls.look()
    assert (here.breaker.state, there.breaker.state) == (State.ISOLATED, State.ISOLATED)

    there.orders.give("addEvent", "release")
    await here.polls.look()
    assert (here.breaker.state, there.breaker.state) == (State.CLOSED, State.CLOSED)


async def test_an_order_is_carried_out_once(board):
    here, there = await Worker(board, 0).started(), await Worker(board, 1).started()
    here.orders.give("addEvent", "trip", 60.0)
    await there.polls.look()
    there.breaker.reset()

    await there.polls.look()

    assert there.breaker.state is State.CLOSED


async def test_a_worker_that_starts_later_finds_the_isolation_and_no_trip(board):
    here = await Worker(board, 0).started()
    here.orders.give("addEvent", "trip", 60.0)
    late = await Worker(board, 1).started()
    assert late.breaker.state is State.CLOSED

    here.orders.give("addEvent", "isolate")
    later = await Worker(board, 2).started()

    assert later.breaker.state is State.ISOLATED


async def test_a_successor_keeps_on_show_what_its_predecessor_was_ordered(board):
    first = await Worker(board, 0).started()
    first.orders.give("addEvent", "isolate")
    successor = await Worker(board, 0).started()
    successor.orders.give("nothing", "trip")

    third = await Worker(board, 1).started()

    assert third.breaker.state is State.ISOLATED

import asyncio
from collections.abc import Callable
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


async def test_all_workers_carry_out_one_workers_orders(board):
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


async def test_a_replacement_keeps_its_predecessors_orders_on_the_board(board):
    first = await Worker(board, 0).started()
    first.orders.give("addEvent", "isolate")
    successor = await Worker(board, 0).started()
    successor.orders.give("nothing", "trip")

    third = await Worker(board, 1).started()

    assert third.breaker.state is State.ISOLATED


class Agenda:
    """Time that the test lets pass, and what is to be done then."""

    def __init__(self) -> None:
        self.now = 1_000
        self._due: list[tuple[float, Callable[[], None], Entry]] = []

    def nanoseconds(self) -> int:
        return self.now * 10**9

    def later(self, seconds: float, act: Callable[[], None]) -> "Entry":
        entry = Entry()
        self._due.append((self.now + seconds, act, entry))
        return entry

    def pass_by(self, seconds: int) -> None:
        self.now += seconds
        due = [(act, entry) for at, act, entry in self._due if at <= self.now]
        self._due = [each for each in self._due if each[0] > self.now]
        for act, entry in due:
            if not entry.cancelled:
                act()


class Entry:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def alone(agenda: Agenda, board: Board | None = None) -> tuple[CircuitBreaker, Orders]:
    breaker = CircuitBreaker("addEvent")
    orders = Orders({"addEvent": breaker}, board=board, now=agenda.nanoseconds, later=agenda.later)
    return breaker, orders


async def test_an_isolation_ends_by_itself_and_says_when():
    agenda = Agenda()
    breaker, orders = alone(agenda)
    orders.give("addEvent", "isolate", 60)
    assert orders.release_at("addEvent") == 1_060
    agenda.pass_by(59)
    assert breaker.state is State.ISOLATED
    agenda.pass_by(1)

    assert breaker.state is State.CLOSED
    assert orders.release_at("addEvent") is None


@pytest.mark.parametrize(("seconds", "ends"), [(None, None), (600, 1_630)])
async def test_who_isolates_last_says_for_how_long(seconds, ends):
    agenda = Agenda()
    breaker, orders = alone(agenda)
    orders.give("addEvent", "isolate", 60)
    agenda.pass_by(30)
    orders.give("addEvent", "isolate", seconds)
    agenda.pass_by(60)

    assert breaker.state is State.ISOLATED
    assert orders.release_at("addEvent") == ends


@pytest.mark.parametrize("action", ["release", "reset"])
async def test_an_isolation_that_was_ended_by_hand_does_not_end_the_next_one(action):
    agenda = Agenda()
    breaker, orders = alone(agenda)
    orders.give("addEvent", "isolate", 60)
    orders.give("addEvent", action)
    orders.give("addEvent", "isolate")
    agenda.pass_by(60)

    assert breaker.state is State.ISOLATED


@pytest.mark.parametrize(("later", "state"), [(40, State.ISOLATED), (90, State.CLOSED)])
async def test_a_worker_that_starts_isolates_for_what_is_left(board, later, state):
    agenda = Agenda()
    _, orders = alone(agenda, board)
    orders.give("addEvent", "isolate", 60)
    agenda.pass_by(later)
    breaker, orders = alone(agenda, board)
    following = asyncio.create_task(orders.follow())
    await asyncio.sleep(0)
    following.cancel()
    assert breaker.state is state
    agenda.pass_by(20)

    assert breaker.state is State.CLOSED

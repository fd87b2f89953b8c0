import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

import pytest

from event_service import context
from event_service.context import CallContext
from event_service.errors import (
    DeadlineExceeded,
    Overloaded,
    UpstreamFailed,
    UpstreamNonsense,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.sources.policy import Guard, Read
from halfopen import (
    CallFailed,
    CallIgnored,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Denied,
    Grant,
    State,
    Verdict,
)

from .guards import Told, breaker, policies

pytestmark = pytest.mark.anyio


def guard(**parts: Any) -> Callable[[Callable[[], Awaitable[str]]], Coroutine[Any, Any, str]]:
    return partial(Guard("op", policies(**parts)).attempt, 1)


def read(fetch: Callable[[str], Awaitable[str]], **parts: Any) -> Read[str]:
    return Read("op", fetch, policies(**parts))


def failure() -> UpstreamFailed:
    return UpstreamFailed("op", "It failed.", reason="test")


@pytest.mark.parametrize("single_flight", [True, False])
async def test_a_read_returns_the_value_fetched_for_its_key(*, single_flight: bool):
    async def fetch(key: str) -> str:
        return f"value of {key}"

    assert await read(fetch, single_flight=single_flight)("k") == "value of k"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (failure(), "failed"),
        (UpstreamRefused("op", "No.", reason="test"), "refused"),
        (UpstreamNonsense("op", "What?", reason="test"), "nonsense"),
        (UpstreamUnavailable("op", "Later.", reason="test", retry_after=None), "unavailable"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
async def test_an_attempts_outcome_is_told_and_its_slot_given_back(
    error: BaseException, outcome: str
):
    async def attempt() -> str:
        raise error

    told = Told()
    guarded = guard(bulkhead=Bulkhead(1, max_waiting=0), told=told)
    for _ in range(2):
        with pytest.raises(type(error)):
            await guarded(attempt)

    assert told.attempts == [f"op {outcome}"] * 2


async def test_who_finds_the_queue_full_is_refused_and_no_outcome_is_told():
    told = Told()
    guarded = guard(bulkhead=Bulkhead(1, max_waiting=0), told=told)
    going_on = asyncio.Event()

    async def attempt() -> str:
        await going_on.wait()
        return "done"

    first = asyncio.create_task(guarded(attempt))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await guarded(attempt)
    going_on.set()

    assert await first == "done"
    assert told.attempts == ["op ok"]


async def test_a_queued_attempt_is_refused_when_the_circuit_opened_and_holds_no_slot():
    circuit = breaker(failures=1)
    guarded = guard(bulkhead=Bulkhead(1, max_waiting=10), circuit=circuit)
    going_on = asyncio.Event()

    async def fail() -> str:
        await going_on.wait()
        raise failure()

    tasks = [asyncio.create_task(guarded(fail)) for _ in range(3)]
    await asyncio.sleep(0)
    going_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in results] == [UpstreamFailed, CircuitOpen, CircuitOpen]
    assert circuit.state is State.OPEN
    circuit.reset()
    with pytest.raises(UpstreamFailed):
        await guarded(fail)


async def test_a_canary_that_has_to_wait_for_a_slot_is_let_in():
    circuit = breaker(failures=1)
    bulkhead = Bulkhead(1, max_waiting=1)
    guarded = guard(circuit=circuit, bulkhead=bulkhead)
    circuit.trip(for_=1e-9)
    assert bulkhead.try_acquire()

    async def attempt() -> str:
        return "well again"

    canary = asyncio.create_task(guarded(attempt))
    await asyncio.sleep(0)
    assert circuit.state is State.HALF_OPEN
    bulkhead.release()

    assert await canary == "well again"
    assert circuit.state is State.CLOSED


class Nodes:
    """A cluster that grants canaries of 60.5 s, and remembers how they went."""

    def __init__(self) -> None:
        self.granted = 0
        self.verdicts: list[Verdict] = []

    async def claim(self) -> Grant:
        self.granted += 1
        return Grant(fence=self.granted, lease=60.5)

    def ask(self) -> Denied:
        return Denied(1.0)

    def settled(self, _grant: Grant, verdict: Verdict, _state: State, _remaining: float) -> None:
        self.verdicts.append(verdict)

    def failed(self) -> None:
        """Not counted here."""

    def tripped(self, remaining: float) -> None:
        """Nobody is told."""

    def steered(self, state: State, remaining: float) -> None:
        """Nobody is told."""


@pytest.mark.parametrize(("waited", "grants"), [(0.4, 1), (0.6, 2)])
async def test_a_canary_that_waited_too_long_for_its_lease_is_claimed_again(waited, grants):
    now = 1_000.0
    circuit = CircuitBreaker("op", trip=ConsecutiveFailures(1), clock=lambda: now)
    nodes = Nodes()
    circuit.join(nodes)
    bulkhead = Bulkhead(1, max_waiting=1)
    guarded = guard(circuit=circuit, bulkhead=bulkhead, attempt_timeout=60.0)
    circuit.trip(for_=1)
    now += 1
    assert bulkhead.try_acquire()

    async def attempt() -> str:
        return "well again"

    canary = asyncio.create_task(guarded(attempt))
    await asyncio.sleep(0)
    assert circuit.state is State.HALF_OPEN
    now += waited
    bulkhead.release()

    assert await canary == "well again"
    assert nodes.granted == grants
    assert nodes.verdicts == [Verdict.NEUTRAL] * (grants - 1) + [Verdict.SUCCESS]


async def test_the_deadline_of_one_request_does_not_end_the_attempt_of_another():
    guarded = guard()
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def attempt() -> str:
        await answered.wait()
        return "in time"

    async def request(seconds: float) -> str:
        call = CallContext("r")
        call.set_deadline(loop.time() + seconds, answer_by=loop.time() + seconds)
        context.current.set(call)
        return await guarded(attempt)

    hasty, patient = asyncio.create_task(request(0.2)), asyncio.create_task(request(60))
    with pytest.raises(UpstreamTimeout):
        await hasty
    for _ in range(10):
        await asyncio.sleep(0)
    answered.set()

    assert await patient == "in time"


async def test_retries_go_by_the_clock_of_deadlines():
    call = CallContext("r")
    soon = asyncio.get_running_loop().time() + 30
    call.set_deadline(soon, answer_by=soon)
    context.current.set(call)
    attempts = 0

    async def fetch(_key: str) -> str:
        nonlocal attempts
        attempts += 1
        asked = 60.0 if attempts == 1 else None
        raise UpstreamUnavailable("op", "Later.", reason="test", retry_after=asked)

    with pytest.raises(UpstreamUnavailable):
        await read(fetch, attempts=3)("k")
    assert attempts == 1

    call.set_deadline(inf, answer_by=inf)
    with pytest.raises(UpstreamUnavailable):
        await read(fetch, attempts=3)("k")
    assert attempts == 4


async def test_a_read_may_be_told_to_try_once():
    attempts = 0

    async def fetch(_key: str) -> str:
        nonlocal attempts
        attempts += 1
        raise failure()

    with pytest.raises(UpstreamFailed):
        await read(fetch, attempts=3)("k", attempts=1)
    assert attempts == 1


@pytest.mark.parametrize("single_flight", [True, False])
async def test_a_forgotten_call_is_joined_by_nobody(*, single_flight: bool):
    answers = iter(["old", "new"])
    going_on = asyncio.Event()

    async def fetch(_key: str) -> str:
        answer = next(answers)
        await going_on.wait()
        return answer

    reading = read(fetch, single_flight=single_flight)
    before = asyncio.ensure_future(reading("k"))
    await asyncio.sleep(0.01)
    reading.forget("k")
    after = asyncio.ensure_future(reading("k"))
    await asyncio.sleep(0.01)
    going_on.set()

    assert [await before, await after] == ["old", "new"]


async def test_an_error_leaves_no_cycle_behind():
    seen: list[weakref.ref[Exception]] = []

    def seen_failure() -> UpstreamFailed:
        error = failure()
        seen.append(weakref.ref(error))
        return error

    async def fetch(_key: str) -> str:
        raise seen_failure()  # a name for it here would be a cycle of the test's own

    reading = read(fetch, attempts=2, told=lambda _signal: None)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(UpstreamFailed) as raised:
            await reading("k")
        del raised
        await asyncio.sleep(0)
        assert [ref() for ref in seen] == [None, None]
    finally:
        gc.enable()


async def test_a_read_that_costs_nothing_costs_little():
    async def fetch(key: str) -> str:
        return key

    async def best_of(calls: Callable[[str], Awaitable[str]]) -> float:
        best = inf
        for _ in range(5):
            began = time.thread_time()
            for _ in range(200):
                await calls("k")
            best = min(best, time.thread_time() - began)
        return best

    async def task(key: str) -> str:
        return await asyncio.create_task(fetch(key))

    # In tasks, so that a slow machine is slow on both sides.
    assert await best_of(read(fetch)) < 12 * await best_of(task)


@pytest.mark.parametrize(
    ("quiet_for", "verdict"), [(0.0, "CallIgnored"), (39.9, "CallIgnored"), (40.1, "CallFailed")]
)
async def test_an_attempt_cut_short_is_a_failure_if_no_byte_came_for_long(
    quiet_for: float, verdict: str
):
    circuit = breaker()
    verdicts: list[str] = []
    for kind in (CallIgnored, CallFailed, CallSucceeded):
        circuit.on(kind, lambda event: verdicts.append(type(event).__name__))
    started = asyncio.Event()

    async def attempt() -> str:
        own = context.attempt.get()
        assert own is not None
        own.quiet_since -= quiet_for
        started.set()
        return await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(guard(circuit=circuit, attempt_timeout=100)(attempt))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert verdicts == [verdict]


async def test_an_attempt_that_waits_for_something_of_ours_is_not_the_upstreams_failure():
    circuit = breaker(failures=1)
    waiting = asyncio.Event()

    async def attempt() -> str:
        own = context.attempt.get()
        assert own is not None
        own.quiet_since = inf
        waiting.set()
        return await asyncio.get_running_loop().create_future()

    call = CallContext("r")
    context.current.set(call)
    now = asyncio.get_running_loop().time()
    call.set_deadline(now + 0.2, answer_by=now + 0.1)
    with pytest.raises(UpstreamTimeout):
        await guard(circuit=circuit, attempt_timeout=0.15)(attempt)

    assert circuit.state is State.CLOSED


async def test_an_attempt_after_the_deadline_is_not_started():
    call = CallContext("r")
    context.current.set(call)
    now = asyncio.get_running_loop().time()
    call.set_deadline(now, answer_by=now)
    told = Told()

    async def attempt() -> str:
        raise AssertionError("it began")

    with pytest.raises(DeadlineExceeded) as raised:
        await guard(told=told)(attempt)

    assert raised.value.operation == "op"
    assert told.attempts == []


async def test_the_budget_of_retries_grows_with_attempts_that_started_alone():
    budget = RetryBudget(0.1, floor=0)
    circuit = breaker()
    reading = read(fails, circuit=circuit, budget=budget)
    circuit.trip()
    for _ in range(1000):
        with pytest.raises(CircuitOpen):
            await reading("k")
    assert budget.remaining == 0

    circuit.reset()
    for _ in range(50):
        with pytest.raises(UpstreamFailed):
            await reading("k")
    assert budget.remaining == 5


async def fails(_key: str) -> str:
    raise failure()

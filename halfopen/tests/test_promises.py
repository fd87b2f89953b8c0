"""A healthy call reads no clock and stores nothing; no call waits for another."""

import asyncio
import contextlib
import gc
import threading
import tracemalloc

import pytest

from halfopen import (
    Backoff,
    BreakerRegistry,
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    CallWindow,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    ProbeExpired,
    SlowCallRate,
    State,
    StateChanged,
    TimeWindow,
)

QUIET = [FailureCount(5, within=60), ConsecutiveFailures(5)]


async def answer():
    return 42


def in_every_style(breaker):
    assert breaker.call(int) == 0
    assert breaker(int)() == 0
    with breaker.guard():
        pass
    assert breaker.acquire().success()
    assert asyncio.run(breaker.acall(answer)) == 42
    assert asyncio.run(breaker(answer)()) == 42
    assert list(breaker(lambda: iter((1,)))()) == [1]


@pytest.mark.parametrize("trip", [*QUIET, tuple(QUIET)])
def test_a_healthy_call_reads_no_clock(make, clock, trip):
    breaker = make(trip=trip)
    clock.reads = 0

    in_every_style(breaker)

    assert clock.reads == 0


def test_the_count_of_reads_can_fail(make, clock):
    breaker = make(trip=FailureRate(0.5, over=CallWindow(10), minimum_calls=5))
    clock.reads = 0

    in_every_style(breaker)

    assert clock.reads >= 7


def test_to_be_let_in_reads_no_clock_where_only_results_count(make, clock):
    breaker = make(trip=FailureRate(0.5, over=CallWindow(10), minimum_calls=5))
    clock.reads = 0

    breaker.acquire()

    assert clock.reads == 0


def test_a_refusal_is_told_or_counted_in_every_style(make):
    breaker = make()
    breaker.trip()
    styles = [
        breaker(int),
        lambda: breaker.call(int),
        lambda: asyncio.run(breaker(answer)()),
        lambda: asyncio.run(breaker.acall(answer)),
    ]

    def refused(style):
        with pytest.raises(CircuitOpen) as refusal:
            style()
        assert (refusal.value.state, refusal.value.retry_after) == (State.OPEN, 10)

    told = []
    for style in styles:
        refused(style)
    leave = breaker.on(CallRejected, told.append)
    for style in styles:
        refused(style)
    leave()
    refused(styles[0])

    assert told == [CallRejected(breaker, State.OPEN, 10)] * 4
    assert breaker.snapshot().rejected == 9


@pytest.mark.parametrize("trip", QUIET)
def test_calls_are_healthy_again_after_a_failure_and_after_an_outage(
    make, clock, fail, succeed, trip
):
    breaker = make(trip=trip)
    fail(breaker)
    succeed(breaker)
    clock.reads = 0
    in_every_style(breaker)
    assert clock.reads == 0

    while breaker.state is State.CLOSED:
        fail(breaker)
    clock.advance(10)
    succeed(breaker)
    clock.reads = 0
    in_every_style(breaker)
    assert clock.reads == 0


@pytest.mark.parametrize("trip", QUIET)
def test_a_healthy_call_stores_nothing(make, trip):
    breaker = make(trip=trip)
    guarded = breaker(int)
    guarded()

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            guarded()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 1000


def in_another_thread(action):
    """Run it there; False if it hangs. A lock held by this thread would make it."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def use(breaker):
    # What takes the lock and causes no event: an event would be heard, and so used again.
    breaker.snapshot()
    breaker.on(StateChanged, print)()


@pytest.fixture
def watched(make):
    """A breaker all of whose user code checks that other threads can use it meanwhile."""
    free = []
    settings = {}

    def check(*_):
        if settings and threading.current_thread() is threading.main_thread():
            free.append(in_another_thread(lambda: use(settings["breaker"])))
        return False

    class Watched:
        now = 0.0
        results = free

        def clock(self):
            check()
            return self.now

        def random(self):
            check()
            return 0.5

    watched = Watched()
    watched.breaker = CircuitBreaker(
        "watched",
        trip=(
            FailureCount(2, within=30),
            SlowCallRate(1, slower_than=5, over=TimeWindow(10), minimum_calls=50),
        ),
        cooldown=Backoff(10, jitter=0.5),
        failure_on=lambda exc: check() or isinstance(exc, ValueError),
        failure_result=check,
        clock=watched.clock,
        random=watched.random,
    )
    settings["breaker"] = watched.breaker
    watched.check = check
    return watched


def test_no_lock_is_held_while_code_of_yours_runs(watched):
    breaker = watched.breaker
    for event in (
        StateChanged,
        CallSucceeded,
        CallFailed,
        CallIgnored,
        CallRejected,
        ProbeExpired,
    ):
        breaker.on(event, watched.check)

    class Failure(ValueError):
        def __str__(self):
            watched.check()
            return "down"

    def fail():
        watched.check()
        raise Failure

    breaker.call(watched.check)
    for _ in range(2):
        with pytest.raises(Failure):
            breaker.call(fail)
    with pytest.raises(CircuitOpen):
        breaker.call(fail)
    watched.now = 10
    hung = breaker.acquire()
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    watched.now = 30
    probe = breaker.acquire()
    hung.success()
    probe.ignore()
    with breaker.isolate():
        breaker.trip()
    breaker.trip()
    breaker.reset()
    breaker.snapshot()

    assert len(watched.results) > 40
    assert all(watched.results)


def test_a_registrys_factory_runs_without_its_lock():
    free = []

    def factory(key):
        free.append(in_another_thread(registry.items))
        return CircuitBreaker(key)

    registry = BreakerRegistry(factory, max_size=1)
    registry["a"], registry["b"]

    assert free == [True, True]


@pytest.mark.parametrize(
    "kept", ["a refusal", "a fast refusal", "a failure", "a generator", "a permit"]
)
def test_a_kept_object_does_not_keep_the_history_alive(make, kept):
    """A traceback or a long call must not hold all that happened to the circuit since."""
    breaker = make(trip=ConsecutiveFailures(2))
    held = []

    def fail():
        raise ValueError

    if kept == "a failure":
        for _ in range(2):
            try:
                breaker(fail)()
            except ValueError as exc:
                held.append(exc)
    elif kept in {"a refusal", "a fast refusal"}:
        breaker.trip()
        try:
            breaker(int)() if kept == "a fast refusal" else breaker.acquire()
        except CircuitOpen as exc:
            held.append(exc)
    elif kept == "a generator":
        held.append(breaker(lambda: iter((1, 2)))())
        held.append(breaker(numbers)())
        next(held[-1])
    else:
        held.append(breaker.acquire())

    def history():
        for _ in range(100):
            breaker.reset()
            breaker.acquire().failure()

    history()
    gc.collect()
    before = len(gc.get_objects())
    history()
    gc.collect()

    assert held
    assert len(gc.get_objects()) - before < 50


def numbers():
    yield 1
    yield 2


def test_the_predicate_is_not_asked_about_a_block_that_gave_its_verdict(make):
    asked = []
    breaker = make(failure_on=asked.append)

    with contextlib.suppress(KeyError), breaker.guard() as permit:
        permit.success()
        raise KeyError

    assert asked == []

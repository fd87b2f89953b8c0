"""A healthy call takes no lock, reads no clock, stores nothing; no lock is held over your code."""

import asyncio
import contextlib
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


class CountingLock:
    """Stands in for threading.Lock and counts who takes it."""

    taken = 0

    def __init__(self):
        self._lock = threading.RLock()

    def acquire(self, *args, **kwargs):
        CountingLock.taken += 1
        return self._lock.acquire(*args, **kwargs)

    def release(self):
        self._lock.release()

    def locked(self):
        return False

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


@pytest.fixture
def locks(monkeypatch):
    monkeypatch.setattr("halfopen.breaker.Lock", CountingLock)
    monkeypatch.setattr("halfopen.events.Lock", CountingLock)
    return CountingLock


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
def test_a_healthy_call_takes_no_lock_and_reads_no_clock(locks, make, clock, trip):
    breaker = make(trip=trip)
    clock.reads = locks.taken = 0

    in_every_style(breaker)

    assert (clock.reads, locks.taken) == (0, 0)


def test_the_count_of_locks_can_fail(locks, make, clock):
    breaker = make(trip=FailureRate(0.5, over=CallWindow(10), minimum_calls=5))
    clock.reads = locks.taken = 0

    in_every_style(breaker)

    assert locks.taken >= 7
    assert clock.reads >= 7


def test_to_be_let_in_costs_neither_where_only_results_count(locks, make, clock):
    breaker = make(trip=FailureRate(0.5, over=CallWindow(10), minimum_calls=5))
    clock.reads = locks.taken = 0

    breaker.acquire()

    assert (clock.reads, locks.taken) == (0, 0)


def test_a_refusal_takes_no_lock_while_nobody_listens(locks, make):
    breaker = make()
    breaker.trip()
    styles = [breaker(int), lambda: breaker.call(int), lambda: asyncio.run(breaker(answer)())]

    def refused(style):
        locks.taken = 0
        with pytest.raises(CircuitOpen) as refusal:
            style()
        assert (refusal.value.state, refusal.value.retry_after) == (State.OPEN, 10)
        return locks.taken

    assert [refused(style) for style in styles] == [0, 0, 0]
    leave = breaker.on(CallRejected, print)
    assert all(refused(style) for style in styles)
    leave()
    assert breaker.snapshot().rejected == 6


@pytest.mark.parametrize("trip", QUIET)
def test_calls_are_healthy_again_after_a_failure_and_after_an_outage(
    locks, make, clock, fail, succeed, trip
):
    breaker = make(trip=trip)
    fail(breaker)
    succeed(breaker)
    clock.reads = locks.taken = 0
    in_every_style(breaker)
    assert (clock.reads, locks.taken) == (0, 0)

    breaker.reset()
    locks.taken = 0
    in_every_style(breaker)
    assert locks.taken == 0

    while breaker.state is State.CLOSED:
        fail(breaker)
    clock.advance(10)
    succeed(breaker)
    clock.reads = locks.taken = 0
    in_every_style(breaker)
    assert (clock.reads, locks.taken) == (0, 0)


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


class HookedLock:
    """A lock that has something happen once, while it is held."""

    def __init__(self):
        self._lock = threading.Lock()
        self.on_entry = self.on_release = None
        made.append(self)

    def acquire(self, *, blocking=True):
        return self._lock.acquire(blocking)

    def release(self):
        hook, self.on_release = self.on_release, None
        if hook is not None:
            hook()
        self._lock.release()

    def locked(self):
        return self._lock.locked()

    def __enter__(self):
        self._lock.acquire()
        hook, self.on_entry = self.on_entry, None
        if hook is not None:
            hook()

    def __exit__(self, *_):
        self.release()


made = []


def test_an_event_queued_as_a_delivery_ends_is_delivered(make, monkeypatch):
    monkeypatch.setattr("halfopen.events.Lock", HookedLock)
    made.clear()
    breaker = make()
    heard = []
    breaker.on(CallFailed, heard.append)
    for lock in made:
        lock.on_release = lambda: breaker.acquire().failure()

    breaker.acquire().failure()

    assert len(heard) == breaker.snapshot().failed > 1


def test_a_generator_collected_under_the_lock_tells_its_event_after_it(make, monkeypatch):
    monkeypatch.setattr("halfopen.breaker.Lock", HookedLock)
    made.clear()
    breaker = make()
    (lock,) = made
    heard = []

    def listener(event):
        heard.append(event)
        breaker.snapshot()  # takes the lock

    breaker.on(CallIgnored, listener)

    @breaker
    def stream():
        yield 1

    items = stream()
    next(items)
    lock.on_entry = items.close

    assert in_another_thread(breaker.snapshot)
    assert len(heard) == 1


def test_the_predicate_is_not_asked_about_a_block_that_gave_its_verdict(make):
    asked = []
    breaker = make(failure_on=asked.append)

    with contextlib.suppress(KeyError), breaker.guard() as permit:
        permit.success()
        raise KeyError

    assert asked == []

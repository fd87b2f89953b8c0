import gc
import sys
import threading
from collections import Counter
from itertools import pairwise

import pytest

from halfopen import (
    CallFailed,
    CallIgnored,
    CallSucceeded,
    CallWindow,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    State,
    StateChanged,
)

THREADS = 16


@pytest.fixture(autouse=True)
def _threads_switch_as_often_as_can_be():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(action, threads=THREADS):
    """Run `action(number)` in many threads that start together; what they return, in order."""
    barrier = threading.Barrier(threads)
    results = [None] * threads

    def run(number):
        barrier.wait()
        try:
            results[number] = action(number)
        except Exception as exc:
            results[number] = exc

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    return results


def test_however_many_threads_call_one_probe_is_let_in(make, clock):
    for _ in range(50):
        breaker = make()
        breaker.trip()
        clock.advance(10)

        results = at_once(lambda _, breaker=breaker: breaker.acquire())

        probes = [result for result in results if not isinstance(result, CircuitOpen)]
        assert len(probes) == 1
        assert all(r.state is State.HALF_OPEN for r in results if isinstance(r, CircuitOpen))
        assert probes[0].success()
        assert breaker.state is State.CLOSED


def test_however_many_threads_call_no_more_probes_are_let_in_than_may_be(make, clock):
    for _ in range(20):
        breaker = make(success_threshold=3)
        breaker.trip()
        clock.advance(10)
        breaker.acquire().success()

        results = at_once(lambda _, breaker=breaker: breaker.acquire())

        probes = [result for result in results if not isinstance(result, CircuitOpen)]
        assert len(probes) == 2
        assert sum(probe.success() for probe in probes) == 2
        assert breaker.state is State.CLOSED


def test_no_failure_is_lost_or_counted_twice(make):
    times = 200
    breaker = make(trip=FailureCount(THREADS * times + 1, within=60))

    at_once(lambda _: [breaker.acquire().failure() for _ in range(times)])

    assert breaker.snapshot().failed == THREADS * times
    assert breaker.snapshot().rules[0].value == THREADS * times


def test_no_call_is_lost_or_counted_twice_in_a_window(make):
    times = 100
    breaker = make(trip=FailureRate(1, over=CallWindow(10_000), minimum_calls=10_000))

    def calls(number):
        for _ in range(times):
            permit = breaker.acquire()
            assert permit.failure() if number % 2 else permit.success()

    at_once(calls)

    reading = breaker.snapshot().rules[0]
    assert (reading.calls, reading.bad) == (THREADS * times, THREADS * times // 2)


def test_the_failures_of_many_threads_open_it_once(make):
    for _ in range(20):
        breaker = make(trip=FailureCount(THREADS // 2, within=60))
        changes = []
        breaker.on(StateChanged, changes.append)
        permits = [breaker.acquire() for _ in range(THREADS)]

        counted = at_once(lambda number, permits=permits: permits[number].failure())

        assert sum(counted) == THREADS // 2
        assert [change.new for change in changes] == [State.OPEN]
        assert breaker.snapshot().opened == 1


def test_one_permit_counts_once_whoever_settles_it(make):
    for _ in range(20):
        breaker = make()
        permit = breaker.acquire()

        counted = at_once(lambda _, permit=permit: permit.failure())

        assert sum(counted) == 1
        assert breaker.snapshot().failed == 1


def test_an_outage_under_load_is_consistent(clock):
    """Calls, verdicts and controls from all sides; what they tell must hang together."""
    breaker = CircuitBreaker(
        "busy",
        trip=(ConsecutiveFailures(3), FailureCount(10, within=1)),
        cooldown=1,
        success_threshold=2,
        clock=clock,
    )
    changes, told = [], Counter()
    breaker.on(StateChanged, changes.append)
    for event in (CallSucceeded, CallFailed, CallIgnored):
        breaker.on(event, lambda event: told.update([type(event)]))
    in_flight, waits = [], []

    def calls(number):
        seen = Counter()
        for turn in range(150):
            if number == 0:
                clock.advance(0.3)
            if number == 1 and turn % 50 == 0:
                breaker.isolate().release()
            try:
                permit = breaker.acquire()
            except CircuitOpen as refused:
                waits.append(refused.retry_after)
                continue
            in_flight.append(breaker.snapshot().probes)
            verdict = ("failure", "failure", "success", "success", "ignore")[(number + turn) % 5]
            seen[getattr(permit, verdict)() and verdict] += 1
        return seen

    results = at_once(calls)

    assert all(isinstance(result, Counter) for result in results)
    for before, after in pairwise(changes):
        assert before.new is after.old
    assert changes[-1].new is breaker.state
    assert max(in_flight) <= 2
    assert min(waits) > 0
    assert sum(sum(result.values()) for result in results) == sum(told.values())
    for verdict, event in (("success", CallSucceeded), ("failure", CallFailed)):
        assert sum(result[verdict] for result in results) == told[event]
    clock.advance(10)
    for _ in range(2):
        breaker.acquire().success()
    assert breaker.state is State.CLOSED


def test_listeners_hear_one_event_at_a_time_and_in_order(make):
    breaker = make(trip=ConsecutiveFailures(10**6))
    heard, inside, overlaps = [], [], []

    def listener(event):
        inside.append(1)
        heard.append(event.error)
        if len(inside) > 1:
            overlaps.append(event)
        inside.pop()

    breaker.on(CallFailed, listener)

    def fail(number):
        for turn in range(60):
            breaker.acquire().failure(ValueError(number, turn))

    at_once(fail)

    assert overlaps == []
    assert len(heard) == THREADS * 60
    for number in range(THREADS):
        turns = [error.args[1] for error in heard if error.args[0] == number]
        assert turns == sorted(turns)


def test_subscribing_and_leaving_loses_no_event_of_the_others(make):
    breaker = make(trip=ConsecutiveFailures(10**6))
    heard = []
    breaker.on(CallFailed, heard.append)

    def come_and_go(number):
        for _ in range(100):
            if number % 2:
                breaker.on(CallFailed, lambda _: None)()
            else:
                breaker.acquire().failure()

    at_once(come_and_go)

    assert len(heard) == THREADS // 2 * 100


def test_once_hears_one_event_though_many_happen_at_once(make):
    for _ in range(20):
        breaker = make(trip=ConsecutiveFailures(10**6))
        heard = []
        breaker.once(CallFailed, heard.append)

        at_once(lambda _, breaker=breaker: breaker.acquire().failure())

        assert len(heard) == 1


def test_a_generator_collected_anywhere_harms_nobody():
    """What a collected generator's end sets off may happen in the middle of anything."""
    breaker = CircuitBreaker("x", trip=FailureRate(1, over=CallWindow(9), minimum_calls=9))
    heard = []
    breaker.on(CallIgnored, heard.append)

    @breaker
    def stream():
        yield 1

    def forget(_):
        for _ in range(200):
            items = stream()
            next(items)
            cycle = [items]
            cycle.append(cycle)
            del items, cycle
            breaker.acquire().success()

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        at_once(forget, threads=4)
        gc.collect()
    finally:
        gc.set_threshold(*before)

    breaker.snapshot()  # whoever took the lock last delivers
    assert len(heard) == 800


def test_no_subscription_is_lost(make):
    breaker = make()
    heard = []

    at_once(lambda _: [breaker.on(CallFailed, heard.append) for _ in range(300)])
    breaker.acquire().failure()

    assert len(heard) == THREADS * 300

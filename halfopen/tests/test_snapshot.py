import dataclasses

import pytest

from halfopen import (
    Backoff,
    CallWindow,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    Reading,
    State,
    TimeWindow,
)


def test_a_snapshot_shows_all_a_dashboard_needs(make, clock, fail, succeed):
    count = FailureCount(3, within=30)
    rate = FailureRate(0.9, over=TimeWindow(60), minimum_calls=10)
    breaker = make(trip=(count, rate), cooldown=Backoff(10), success_threshold=3)
    fail(breaker)
    clock.advance(20)
    fail(breaker)
    succeed(breaker, 2)
    clock.advance(11)

    snapshot = breaker.snapshot()

    assert dataclasses.asdict(dataclasses.replace(snapshot, rules=(), last_failure=None)) == {
        "name": "upstream",
        "state": State.CLOSED,
        "in_state_for": 31,
        "retry_after": 0,
        "next_cooldown": 10,
        "rules": (),
        "probes": 0,
        "probes_allowed": 1,
        "successes": 0,
        "success_threshold": 3,
        "failed": 2,
        "rejected": 0,
        "opened": 0,
        "last_failure": None,
    }
    assert snapshot.rules == (Reading(count, 1, 3, 1, 1), Reading(rate, 0.5, 0.9, 2, 4))
    assert snapshot.last_failure is None


def test_a_snapshot_follows_an_outage(make, clock, fail):
    breaker = make(trip=ConsecutiveFailures(1), cooldown=Backoff(10), success_threshold=5)
    fail(breaker)
    clock.advance(4)
    for _ in range(2):
        with pytest.raises(CircuitOpen):
            breaker.acquire()
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.in_state_for, snapshot.retry_after) == (State.OPEN, 4, 6)
    assert (snapshot.next_cooldown, snapshot.rejected, snapshot.opened) == (20, 2, 1)
    assert str(snapshot.last_failure) == "down"

    clock.advance(60)
    assert breaker.snapshot().retry_after == 0
    breaker.acquire().success()
    probe = breaker.acquire()
    clock.advance(3)
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.in_state_for, snapshot.retry_after) == (State.HALF_OPEN, 3, 0)
    assert (snapshot.probes, snapshot.probes_allowed, snapshot.successes) == (1, 2, 1)

    other = breaker.acquire()
    clock.advance(1)
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    snapshot = breaker.snapshot()
    assert (snapshot.probes, snapshot.retry_after, snapshot.rejected) == (2, 6, 3)
    clock.advance(6)
    assert (breaker.snapshot().probes, breaker.snapshot().retry_after) == (1, 0)
    assert probe.success()
    assert other.failure()
    assert breaker.snapshot().opened == 2


def test_reading_changes_nothing(make, clock, fail):
    breaker = make(
        trip=(
            FailureCount(3, within=30),
            FailureRate(0.9, over=CallWindow(5), minimum_calls=5),
            FailureRate(0.9, over=TimeWindow(5), minimum_calls=5),
        )
    )

    def read():
        return breaker.state, breaker.snapshot(), repr(breaker)

    fail(breaker, 2)
    clock.advance(100)
    assert read() == read()
    clock.advance(-100)
    assert [reading.bad for reading in breaker.snapshot().rules] == [2, 2, 2]
    fail(breaker)
    clock.advance(1000)
    assert read() == read()
    assert breaker.state is State.OPEN
    probe = breaker.acquire()
    clock.advance(1000)
    assert read() == read()
    assert breaker.snapshot().probes == 0
    clock.advance(-1000)
    assert breaker.snapshot().probes == 1
    assert probe.success()


def test_a_row_of_failures_reads_like_a_count(make, fail):
    rule = ConsecutiveFailures(3)
    breaker = make(trip=rule)
    fail(breaker, 2)

    assert breaker.snapshot().rules == (Reading(rule, 2, 3, 2, 2),)


def test_a_rate_without_calls_reads_zero(make):
    breaker = make(trip=FailureRate(0.5, over=CallWindow(5), minimum_calls=5))

    assert breaker.snapshot().rules[0].value == 0


def test_a_reading_while_open_shows_what_opened_it_until_it_closes(make, clock, fail, succeed):
    breaker = make(trip=FailureCount(2, within=30))
    fail(breaker, 2)
    assert breaker.snapshot().rules[0].value == 2

    clock.advance(10)
    succeed(breaker)

    assert breaker.snapshot().rules[0].value == 0


def test_a_snapshot_is_frozen(make):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().snapshot().state = State.OPEN

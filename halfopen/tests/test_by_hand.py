import math

import pytest

from halfopen import Backoff, CircuitOpen, ConsecutiveFailures, FailureCount, State, StateChanged


@pytest.fixture
def breaker(make):
    return make(trip=FailureCount(2, within=1000), cooldown=10)


def refusal(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    return refused.value


def test_trip_opens_it_for_the_cooldown(breaker, clock):
    breaker.trip()

    assert refusal(breaker).retry_after == 10
    clock.advance(10)
    assert breaker.acquire().success()
    assert breaker.state is State.CLOSED


def test_trip_opens_it_for_as_long_as_it_is_told(breaker, clock):
    breaker.trip(for_=60)

    clock.advance(59)
    assert refusal(breaker).retry_after == 1
    clock.advance(1)
    assert breaker.acquire().success()


def test_trip_for_a_time_leaves_growth_and_probe_timeout_alone(breaker, clock):
    breaker.trip(60)
    clock.advance(60)

    probe = breaker.acquire()

    assert refusal(breaker).retry_after == 10
    assert probe.success()


def test_trip_begins_the_cooldown_again(breaker, clock):
    changes = []
    breaker.on(StateChanged, changes.append)
    breaker.trip()
    clock.advance(5)

    breaker.trip()

    assert refusal(breaker).retry_after == 10
    assert len(changes) == 1
    assert breaker.snapshot().in_state_for == 5


@pytest.mark.parametrize("for_", [0, -1, math.nan, math.inf])
def test_trip_refuses_a_time_that_is_none(breaker, for_):
    with pytest.raises(ValueError, match="for_"):
        breaker.trip(for_)
    assert breaker.state is State.CLOSED


def test_an_isolated_breaker_refuses_every_call_until_it_is_released(breaker, clock):
    handle = breaker.isolate()

    clock.advance(1e6)
    refused = refusal(breaker)
    assert (refused.state, refused.retry_after) == (State.ISOLATED, 10)
    assert breaker.snapshot().retry_after == 10
    handle.release()

    assert breaker.state is State.CLOSED
    assert breaker.acquire().success()


def test_both_of_two_handles_must_be_released(breaker):
    first, second = breaker.isolate(), breaker.isolate()

    first()
    first()
    assert breaker.state is State.ISOLATED
    second()

    assert breaker.state is State.CLOSED


def test_a_handle_that_was_released_ends_no_later_isolation(breaker):
    old = breaker.isolate()
    old.release()
    new = breaker.isolate()

    old.release()

    assert breaker.state is State.ISOLATED
    new.release()


def test_a_handle_serves_as_a_block(breaker):
    with breaker.isolate():
        assert breaker.state is State.ISOLATED

    assert breaker.state is State.CLOSED


def test_nothing_that_happens_meanwhile_ends_an_isolation(breaker, fail):
    in_flight = [breaker.acquire() for _ in range(2)]
    handle = breaker.isolate()

    for permit in in_flight:
        assert not permit.failure()
    breaker.trip()

    assert breaker.state is State.ISOLATED
    assert breaker.snapshot().opened == 0
    handle.release()
    assert breaker.state is State.CLOSED
    assert breaker.snapshot().rules[0].value == 0


def test_isolating_twice_is_told_once(breaker):
    changes = []
    breaker.on(StateChanged, changes.append)

    first, second = breaker.isolate(), breaker.isolate()
    first.release()
    second.release()

    assert [(change.old, change.new, change.reason) for change in changes] == [
        (State.CLOSED, State.ISOLATED, "isolated by hand"),
        (State.ISOLATED, State.CLOSED, "released by hand"),
    ]


def test_reset_makes_it_as_new(make, fail, clock):
    breaker = make(trip=ConsecutiveFailures(2), cooldown=10)
    fail(breaker, 2)

    breaker.reset()

    assert breaker.state is State.CLOSED
    assert breaker.snapshot().last_failure is None
    fail(breaker)
    assert breaker.state is State.CLOSED


def test_reset_forgets_failures_and_calls_in_flight_of_a_closed_circuit(breaker, fail):
    in_flight = breaker.acquire()
    fail(breaker)

    breaker.reset()

    assert not in_flight.failure()
    fail(breaker)
    assert breaker.state is State.CLOSED


def test_reset_ends_isolation(breaker):
    handle = breaker.isolate()

    breaker.reset()
    assert breaker.state is State.CLOSED
    breaker.trip()
    handle.release()

    assert breaker.state is State.OPEN


def test_an_isolation_over_an_open_circuit_leads_back_to_it(breaker, clock, fail):
    fail(breaker, 2)
    clock.advance(4)

    with breaker.isolate(), breaker.isolate():
        clock.advance(1)

    assert breaker.state is State.OPEN
    assert refusal(breaker).retry_after == 5
    assert str(refusal(breaker).last_failure) == "down"
    assert breaker.snapshot().opened == 1
    clock.advance(5)
    assert breaker.acquire().success()
    assert breaker.state is State.CLOSED


def test_an_isolation_over_an_open_circuit_outlasts_its_cooldown(breaker, clock):
    breaker.trip()

    with breaker.isolate():
        clock.advance(100)
        assert refusal(breaker).state is State.ISOLATED

    assert breaker.state is State.OPEN
    assert breaker.acquire().success()


def test_an_isolation_over_a_half_open_circuit_leads_to_a_new_probe(breaker, clock):
    breaker.trip()
    clock.advance(10)
    probe = breaker.acquire()

    with breaker.isolate():
        assert not probe.failure()

    assert breaker.state is State.OPEN
    assert breaker.acquire().success()
    assert breaker.state is State.CLOSED


def test_trip_while_open_takes_no_step_of_the_backoff(make, clock, fail):
    breaker = make(trip=ConsecutiveFailures(1), cooldown=Backoff(10))
    fail(breaker)

    for _ in range(5):
        clock.advance(1)
        breaker.trip()

    assert refusal(breaker).retry_after == 10
    assert breaker.snapshot().next_cooldown == 20
    assert breaker.snapshot().opened == 1
    clock.advance(10)
    fail(breaker)
    assert refusal(breaker).retry_after == 20
    breaker.trip()
    assert refusal(breaker).retry_after == 20


def test_trip_while_open_for_a_time_takes_the_first_step(make, clock):
    breaker = make(cooldown=Backoff(10))
    breaker.trip(for_=3)

    breaker.trip()

    assert refusal(breaker).retry_after == 10
    assert breaker.snapshot().next_cooldown == 20

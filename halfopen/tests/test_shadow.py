"""In shadow mode the breaker does all that it does, but refuses nothing."""

import asyncio

import pytest

from halfopen import (
    CallIgnored,
    CallRejected,
    CircuitBreaker,
    ConsecutiveFailures,
    State,
    StateChanged,
)


@pytest.fixture
def breaker(make):
    return make(trip=ConsecutiveFailures(2), shadow=True)


async def answer():
    return 42


def test_it_lets_every_call_in_and_tells_which_it_would_have_refused(breaker, fail):
    rejected = []
    fail(breaker, 2)
    assert breaker.state is State.OPEN
    breaker.on(CallRejected, rejected.append)

    assert breaker.call(int, "42") == 42
    assert breaker(int)("42") == 42
    assert asyncio.run(breaker(answer)()) == 42
    assert asyncio.run(breaker.acall(answer)) == 42
    with breaker.guard():
        pass

    assert rejected == [CallRejected(breaker, State.OPEN, 10)] * 5
    assert breaker.snapshot().rejected == 5
    assert breaker.state is State.OPEN


def test_a_call_that_would_have_been_refused_counts_nowhere(breaker, clock, fail):
    fail(breaker, 2)
    ignored = []
    breaker.on(CallIgnored, ignored.append)

    assert not breaker.acquire().success()
    fail(breaker, 10)

    assert breaker.snapshot().failed == 2
    assert breaker.snapshot().opened == 1
    assert len(ignored) == 11


def test_it_changes_its_state_like_any_other(breaker, clock, fail):
    changes = []
    breaker.on(StateChanged, lambda change: changes.append(change.new))
    fail(breaker, 2)
    clock.advance(10)

    probe, other = breaker.acquire(), breaker.acquire()
    assert not other.failure()
    assert probe.success()

    assert changes == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_not_even_an_operator_makes_it_refuse(breaker):
    with breaker.isolate():
        assert breaker.call(int) == 0


def test_it_is_on_or_off():
    with pytest.raises(TypeError, match=r"^shadow must be True or False"):
        CircuitBreaker("x", shadow=1)

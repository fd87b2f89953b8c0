"""A call that began in one state and ends in another counts nowhere."""

import asyncio

import pytest

from halfopen import CallFailed, CallIgnored, CallSucceeded, CircuitOpen, Event, FailureCount, State


@pytest.fixture
def breaker(make):
    return make(trip=FailureCount(2, within=1000), cooldown=10)


def wait_of(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    return refused.value.retry_after


def test_a_late_failure_does_not_extend_the_cooldown(breaker, clock, fail):
    late = breaker.acquire()
    fail(breaker, 2)
    clock.advance(6)

    assert not late.failure(ValueError())

    assert wait_of(breaker) == 4
    assert breaker.snapshot().failed == 2


def test_a_late_success_does_not_close_an_open_circuit(breaker, fail):
    late = breaker.acquire()
    fail(breaker, 2)

    assert not late.success()

    assert breaker.state is State.OPEN


@pytest.mark.parametrize("verdict", ["success", "failure", "ignore"])
def test_a_late_result_does_not_touch_the_probe(breaker, clock, fail, verdict):
    late = breaker.acquire()
    fail(breaker, 2)
    clock.advance(10)
    probe = breaker.acquire()

    assert not getattr(late, verdict)()

    assert breaker.state is State.HALF_OPEN
    assert wait_of(breaker) == 10
    assert probe.success()


def test_a_failure_from_before_the_outage_does_not_count_after_it(breaker, clock, fail, succeed):
    late = [breaker.acquire() for _ in range(3)]
    fail(breaker, 2)
    clock.advance(10)
    succeed(breaker)

    assert not any(permit.failure() for permit in late)

    assert breaker.state is State.CLOSED
    assert breaker.snapshot().rules[0].value == 0


def test_a_probe_that_ends_after_another_closed_the_circuit_counts_nowhere(breaker, clock, fail):
    fail(breaker, 2)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(10)
    assert breaker.acquire().success()
    assert breaker.state is State.CLOSED

    assert not hung.failure()

    assert breaker.state is State.CLOSED


def test_a_probe_that_ends_after_another_failed_counts_nowhere(make, clock, fail):
    breaker = make(trip=FailureCount(1, within=1000), success_threshold=3)
    fail(breaker)
    clock.advance(10)
    breaker.acquire().success()
    first, second = breaker.acquire(), breaker.acquire()
    assert first.failure()
    clock.advance(5)

    assert not second.failure()
    assert wait_of(breaker) == 5
    clock.advance(5)
    probe = breaker.acquire()
    assert not second.success()

    assert breaker.state is State.HALF_OPEN
    assert probe.success()


def test_a_probe_of_an_earlier_trial_gives_no_slot_of_this_one_back(breaker, clock, fail):
    fail(breaker, 2)
    clock.advance(10)
    early = breaker.acquire()
    breaker.trip()
    clock.advance(10)
    probe = breaker.acquire()

    assert not early.ignore()

    assert wait_of(breaker) == 10
    assert probe.success()


def test_calls_through_the_decorator_are_late_like_all_others(breaker, fail):
    @breaker
    def opens_on_the_way(result):
        fail(breaker, 2)
        if result is None:
            raise ValueError
        return result

    assert opens_on_the_way(7) == 7
    assert breaker.state is State.OPEN
    breaker.reset()
    with pytest.raises(ValueError):
        opens_on_the_way(None)

    assert breaker.snapshot().failed == 4


def test_a_late_result_is_told_as_ignored(breaker, fail):
    told = []
    for event in (CallIgnored, CallFailed, CallSucceeded):
        breaker.on(event, told.append)
    late = [breaker.acquire(), breaker.acquire()]
    fail(breaker, 2)
    told.clear()

    error = ValueError()
    late[0].failure(error)
    late[1].success()

    assert told == [CallIgnored(breaker, error), CallIgnored(breaker, None)]


def test_a_permit_counts_once(breaker):
    permit = breaker.acquire()

    assert permit.failure()
    assert not permit.failure()
    assert not permit.success()
    assert not permit.ignore()

    assert breaker.snapshot().failed == 1
    for first in ("success", "ignore"):
        permit = breaker.acquire()
        assert getattr(permit, first)()
        assert [permit.success(), permit.failure(), permit.ignore()] == [False] * 3
    assert breaker.snapshot().failed == 1


def test_a_probe_settled_from_two_sides_counts_once(breaker, clock, fail):
    fail(breaker, 2)
    clock.advance(10)
    probe = breaker.acquire()
    verdicts = []
    told = []
    breaker.on(Event, told.append)

    def settle_meanwhile():
        clock.when_read = None
        verdicts.append(probe.ignore())

    clock.when_read = settle_meanwhile
    verdicts.append(probe.failure())

    assert verdicts == [True, False]
    assert told == [CallIgnored(breaker, None)]
    assert breaker.state is State.HALF_OPEN


def test_an_overdue_probe_settled_from_two_sides_counts_once(make, clock):
    breaker = make(cooldown=10, success_threshold=3)
    breaker.trip()
    clock.advance(10)
    probe = breaker.acquire()
    clock.advance(10)
    other = breaker.acquire()  # has the slot that the first has lost
    verdicts = []

    def settle_meanwhile():
        clock.when_read = None
        verdicts.append(probe.success())

    clock.when_read = settle_meanwhile
    verdicts.append(probe.success())

    assert verdicts == [True, False]
    assert breaker.snapshot().successes == 1
    assert other.success()


def test_a_coroutine_that_ends_in_another_state_is_late(breaker, fail):
    ignored = []

    @breaker
    async def opens_on_the_way():
        fail(breaker, 2)
        breaker.on(CallIgnored, ignored.append)
        return 7

    assert asyncio.run(opens_on_the_way()) == 7

    assert ignored == [CallIgnored(breaker, None)]

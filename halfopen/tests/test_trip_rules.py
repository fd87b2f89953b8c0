import gc
import sys
import tracemalloc

import pytest

from halfopen import (
    CallWindow,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    SlowCallRate,
    State,
    TimeWindow,
)


def test_the_default_is_five_failures_in_a_row(make, clock, fail, succeed):
    breaker = make()

    for _ in range(1_600):  # five errors among 8 000 calls are nothing to a busy service
        succeed(breaker, 4)
        fail(breaker)
    fail(breaker, 3)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN
    assert breaker.snapshot().retry_after == 10.0


def test_the_failure_that_reaches_the_count_opens_the_circuit(make, fail):
    breaker = make(trip=FailureCount(3, within=30))

    fail(breaker, 2)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_failure_exactly_as_old_as_the_window_still_counts(make, clock, fail):
    breaker = make(trip=FailureCount(3, within=30))

    fail(breaker)
    clock.advance(30)
    fail(breaker, 2)

    assert breaker.state is State.OPEN


@pytest.mark.parametrize("start", [0.1, 0.3, 1000.7, 123456.789])
def test_rounding_does_not_move_the_edge_of_the_window(make, clock, fail, start):
    clock.now = start
    breaker = make(trip=FailureCount(2, within=30.1))

    fail(breaker)
    clock.advance(30.1)
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_failure_older_than_the_window_does_not_count(make, clock, fail):
    breaker = make(trip=FailureCount(3, within=30))

    fail(breaker)
    clock.advance(30.001)
    fail(breaker, 2)
    assert breaker.state is State.CLOSED
    clock.advance(30)
    fail(breaker)

    assert breaker.state is State.OPEN


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_failures_that_keep_coming_open_nothing_while_the_window_holds_too_few(
    make, clock, fail, n
):
    breaker = make(trip=FailureCount(n, within=30))

    for _ in range(4 * n):
        clock.advance(30.001 / (n - 1))
        fail(breaker)

    assert breaker.state is State.CLOSED
    assert breaker.snapshot().rules[0].value == n - 1
    fail(breaker)
    assert breaker.state is State.OPEN


def test_successes_do_not_empty_the_window_of_failures(make, fail, succeed):
    breaker = make(trip=FailureCount(3, within=30))

    fail(breaker, 2)
    succeed(breaker, 100)
    fail(breaker)

    assert breaker.state is State.OPEN


def test_consecutive_failures_open_the_circuit_however_far_apart(make, clock, fail):
    breaker = make(trip=ConsecutiveFailures(3))

    fail(breaker, 2)
    clock.advance(1e6)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_success_starts_the_row_of_failures_again(make, fail, succeed):
    breaker = make(trip=ConsecutiveFailures(3))

    fail(breaker, 2)
    succeed(breaker)
    fail(breaker, 2)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_neutral_call_does_not_interrupt_the_row(make, fail):
    breaker = make(trip=ConsecutiveFailures(2))

    fail(breaker)
    breaker.acquire().ignore()
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_success_that_began_before_the_failure_interrupts_the_row_too(make, fail):
    breaker = make(trip=ConsecutiveFailures(2))

    slow = breaker.acquire()
    fail(breaker)
    assert slow.success()
    fail(breaker)

    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("over", [CallWindow(10), TimeWindow(60)])
def test_a_rate_waits_for_its_minimum_of_calls(make, fail, succeed, over):
    breaker = make(trip=FailureRate(0.5, over=over, minimum_calls=4))

    fail(breaker, 3)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN


@pytest.mark.parametrize("over", [CallWindow(10), TimeWindow(60)])
def test_the_success_that_completes_the_minimum_may_open_the_circuit(make, fail, succeed, over):
    breaker = make(trip=FailureRate(0.5, over=over, minimum_calls=4))

    fail(breaker, 2)
    succeed(breaker)
    assert breaker.state is State.CLOSED
    succeed(breaker)

    assert breaker.state is State.OPEN


def test_a_rate_below_the_threshold_keeps_the_circuit_closed(make, fail, succeed):
    breaker = make(trip=FailureRate(0.5, over=CallWindow(10), minimum_calls=4))

    succeed(breaker, 4)
    fail(breaker, 3)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN


@pytest.mark.parametrize(("rate", "failures"), [(0.07, 7), (0.29, 29), (0.57, 57), (1.0, 100)])
def test_rounding_does_not_move_the_threshold_of_a_rate(make, fail, succeed, rate, failures):
    breaker = make(trip=FailureRate(rate, over=CallWindow(100), minimum_calls=100))

    succeed(breaker, 100 - failures)
    fail(breaker, failures - 1)
    assert breaker.state is State.CLOSED
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_call_window_forgets_the_oldest_call(make, fail, succeed):
    breaker = make(trip=FailureRate(0.6, over=CallWindow(5), minimum_calls=5))

    fail(breaker, 2)
    succeed(breaker, 3)
    fail(breaker, 2)  # pushes the first two out
    reading = breaker.snapshot().rules[0]
    assert (reading.bad, reading.calls, reading.value) == (2, 5, 0.4)
    fail(breaker)

    assert breaker.state is State.OPEN


def test_a_time_window_forgets_calls_older_than_itself(make, clock, fail, succeed):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(10), minimum_calls=4))

    fail(breaker, 3)
    clock.advance(10.001)
    fail(breaker)
    assert breaker.state is State.CLOSED
    assert breaker.snapshot().rules[0].calls == 1
    fail(breaker, 3)

    assert breaker.state is State.OPEN


def test_a_call_exactly_as_old_as_the_time_window_still_counts(make, clock, fail):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(10), minimum_calls=4))

    fail(breaker, 3)
    clock.advance(10)
    fail(breaker)

    assert breaker.state is State.OPEN


def test_failures_that_left_the_time_window_open_nothing(make, clock, fail, succeed):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(10), minimum_calls=4))

    fail(breaker, 3)
    clock.advance(11)
    succeed(breaker, 3)
    fail(breaker)
    assert breaker.state is State.CLOSED
    fail(breaker, 2)

    assert breaker.state is State.OPEN


def test_calls_a_hundredth_of_the_window_apart_share_no_bucket(make, clock, succeed):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(100), minimum_calls=4))

    succeed(breaker)
    clock.advance(1)
    succeed(breaker)
    clock.advance(99.5)

    assert breaker.snapshot().rules[0].calls == 1


def test_calls_in_one_bucket_count_for_at_most_a_hundredth_longer(make, clock, succeed):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(10), minimum_calls=4))

    succeed(breaker)
    clock.advance(0.09)
    succeed(breaker)  # shares the bucket of the first
    clock.advance(0.02)
    succeed(breaker)  # 0.11 s after the first: a new bucket
    clock.advance(9.97)
    assert breaker.snapshot().rules[0].calls == 3
    clock.advance(0.02)
    assert breaker.snapshot().rules[0].calls == 1
    succeed(breaker)

    assert breaker.snapshot().rules[0].calls == 2


@pytest.mark.parametrize("between", [0, 1, 2])
def test_a_call_leaves_the_time_window_while_a_later_one_is_still_joined(
    make, clock, succeed, between
):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(100), minimum_calls=9))

    succeed(breaker)
    for _ in range(between):
        clock.advance(10)
        succeed(breaker)
    clock.advance(99.5 - 10 * between)
    succeed(breaker)
    clock.advance(0.6)
    succeed(breaker)  # the first is too old; the bucket before this call still takes it
    assert breaker.snapshot().rules[0].calls == between + 2
    clock.advance(99.6)

    assert breaker.snapshot().rules[0].calls == 2


def test_many_calls_may_leave_the_time_window_at_once(make, clock, fail, succeed):
    breaker = make(trip=FailureRate(0.9, over=TimeWindow(100), minimum_calls=99))

    for _ in range(3):
        fail(breaker)
        clock.advance(2)
    clock.advance(97)
    succeed(breaker)
    reading = breaker.snapshot().rules[0]
    assert (reading.bad, reading.calls) == (1, 2)
    clock.advance(1000)
    succeed(breaker)
    reading = breaker.snapshot().rules[0]

    assert (reading.bad, reading.calls) == (0, 1)


def test_a_call_whose_time_is_overtaken_by_another_threads_makes_none_older(make, clock, succeed):
    breaker = make(trip=FailureRate(0.5, over=TimeWindow(100), minimum_calls=9))

    clock.advance(0.5)
    succeed(breaker)
    clock.advance(-0.25)
    succeed(breaker)
    clock.advance(100.25)

    assert breaker.snapshot().rules[0].calls == 2


def test_slow_calls_open_the_circuit_though_they_succeed(make, clock):
    breaker = make(trip=SlowCallRate(0.5, slower_than=2.0, over=CallWindow(10), minimum_calls=4))

    for seconds in (2.0, 2.0, 2.0, 2.001):
        breaker.call(clock.advance, seconds)
    assert breaker.state is State.CLOSED
    for seconds in (3, 3):
        breaker.call(clock.advance, seconds)

    assert breaker.state is State.OPEN
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    assert refused.value.last_failure is None


def test_failures_are_not_slow_calls(make, fail):
    breaker = make(trip=SlowCallRate(0.5, slower_than=2.0, over=CallWindow(10), minimum_calls=4))

    fail(breaker, 10)

    assert breaker.state is State.CLOSED


def test_a_slow_failure_is_a_slow_call(make, clock):
    breaker = make(trip=SlowCallRate(0.5, slower_than=2.0, over=TimeWindow(60), minimum_calls=2))

    for _ in range(2):
        permit = breaker.acquire()
        clock.advance(3)
        assert permit.failure()

    assert breaker.state is State.OPEN


def test_any_of_several_rules_opens_the_circuit(make, clock, fail, succeed):
    rules = (ConsecutiveFailures(3), FailureCount(5, within=30))
    by_row, by_count = make(trip=rules), make(trip=rules)

    fail(by_row, 3)
    for _ in range(2):
        fail(by_count, 2)
        succeed(by_count)
    assert by_count.state is State.CLOSED
    fail(by_count)

    assert by_row.state is State.OPEN
    assert by_count.state is State.OPEN


def test_every_rule_hears_every_call(make, fail, succeed):
    breaker = make(
        trip=(
            FailureCount(3, within=30),
            FailureRate(0.9, over=CallWindow(10), minimum_calls=10),
            ConsecutiveFailures(4),
        )
    )

    succeed(breaker)
    fail(breaker, 3)

    assert [reading.bad for reading in breaker.snapshot().rules] == [3, 3, 3]


def test_breakers_share_a_rule_but_not_its_count(make, fail):
    rule = FailureCount(2, within=30)
    one, other = make(trip=rule), make(trip=rule)

    fail(one)
    fail(other)

    assert (one.state, other.state) == (State.CLOSED, State.CLOSED)


@pytest.mark.parametrize(
    "rule",
    [
        FailureCount(50, within=1e9),
        FailureRate(1.0, over=CallWindow(50), minimum_calls=50),
        FailureRate(1.0, over=TimeWindow(1e4), minimum_calls=10**6),
        SlowCallRate(1.0, slower_than=1, over=TimeWindow(1e4), minimum_calls=10**6),
    ],
)
def test_memory_does_not_grow_with_the_number_of_calls(make, clock, rule):
    breaker = make(trip=rule)

    def many_calls():
        for _ in range(1_000):
            clock.advance(17)
            breaker.acquire().success()
            if not isinstance(rule, FailureCount):
                breaker.acquire().failure()

    many_calls()  # fills every window
    gc.collect()
    tracemalloc.start()
    try:
        many_calls()
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert breaker.state is State.CLOSED
    assert grown < 60_000


def steps_of(action):
    """How many lines of Python the action takes: the time, without a clock."""
    steps = 0

    def trace(_frame, _event, _arg):
        nonlocal steps
        steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize(
    "rule",
    [
        FailureCount(10**6, within=1e6),
        FailureRate(1.0, over=TimeWindow(1e4), minimum_calls=10**6),
        FailureRate(1.0, over=CallWindow(10**5), minimum_calls=10**5),
    ],
)
def test_a_call_after_a_long_pause_costs_no_more_than_a_hundred_buckets(make, clock, rule):
    breaker = make(trip=rule)
    for _ in range(3_000):
        clock.advance(3)
        breaker.acquire().failure()

    clock.advance(1e12)

    assert steps_of(lambda: breaker.acquire().failure()) < 1_500
    assert steps_of(lambda: breaker.acquire().failure()) < 250

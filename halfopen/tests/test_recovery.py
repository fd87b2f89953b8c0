import gc

import pytest

from halfopen import (
    Backoff,
    CallRejected,
    CallWindow,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    ProbeExpired,
    SlowCallRate,
    State,
)


@pytest.fixture
def opened(make, fail):
    def opened(**settings):
        breaker = make(trip=ConsecutiveFailures(1), **settings)
        fail(breaker)
        assert breaker.state is State.OPEN
        return breaker

    return opened


def refusal(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    return refused.value


def test_an_open_circuit_refuses_until_its_cooldown_is_over(opened, clock):
    breaker = opened(cooldown=10)

    assert refusal(breaker).retry_after == 10
    clock.advance(9.999)
    assert refusal(breaker).retry_after == pytest.approx(0.001)
    clock.advance(0.001)

    assert breaker.acquire().success()
    assert breaker.state is State.CLOSED


def test_it_stays_open_until_somebody_calls(opened, clock):
    breaker = opened(cooldown=10)

    clock.advance(100)
    assert breaker.state is State.OPEN
    assert breaker.snapshot().retry_after == 0
    probe = breaker.acquire()

    assert breaker.state is State.HALF_OPEN
    assert probe.success()


def test_exactly_one_probe_is_let_in_first(opened, clock):
    breaker = opened(cooldown=10, success_threshold=3)
    clock.advance(10)

    probe = breaker.acquire()
    for _ in range(5):
        assert refusal(breaker).state is State.HALF_OPEN

    assert probe.success()


def test_each_success_doubles_how_many_probes_may_be_in_flight(opened, clock):
    breaker = opened(cooldown=10, success_threshold=12)
    clock.advance(10)

    in_flight = [breaker.acquire()]
    for allowed in (2, 4, 8):
        assert in_flight.pop().success()
        in_flight += [breaker.acquire() for _ in range(allowed - len(in_flight))]
        assert refusal(breaker).state is State.HALF_OPEN
    while in_flight:
        assert in_flight.pop().success()

    assert breaker.snapshot().successes == 11


def test_no_more_probes_are_in_flight_than_successes_are_missing(opened, clock):
    breaker = opened(cooldown=10, success_threshold=5)
    clock.advance(10)
    for _ in range(2):
        breaker.acquire().success()

    in_flight = [breaker.acquire() for _ in range(3)]
    assert refusal(breaker).state is State.HALF_OPEN
    assert in_flight.pop().success()
    refusal(breaker)
    assert in_flight.pop().success()
    assert in_flight.pop().success()

    assert breaker.state is State.CLOSED


def test_doubling_has_an_end(opened, clock, succeed):
    breaker = opened(success_threshold=2**21)
    clock.advance(10)

    succeed(breaker, 40)

    assert breaker.snapshot().probes_allowed == 2**20


def test_a_share_of_the_probes_may_fail_where_asked(opened, clock, fail, succeed):
    breaker = opened(cooldown=10, success_threshold=10, success_share=0.7)
    clock.advance(10)

    fail(breaker, 3)
    succeed(breaker, 6)
    assert breaker.state is State.HALF_OPEN
    succeed(breaker)
    assert breaker.state is State.CLOSED

    breaker.trip()
    clock.advance(10)
    succeed(breaker, 6)
    fail(breaker, 3)
    assert breaker.state is State.HALF_OPEN
    fail(breaker)
    assert breaker.state is State.OPEN


@pytest.mark.parametrize(
    ("share", "needed"), [(0.07, 7), (0.29, 29), (0.071, 8), (1, 100), (0.001, 1)]
)
def test_rounding_does_not_move_the_share_of_probes(opened, clock, succeed, share, needed):
    breaker = opened(success_threshold=100, success_share=share)
    clock.advance(10)

    succeed(breaker, needed - 1)
    assert breaker.state is (State.HALF_OPEN if needed > 1 else State.OPEN)
    succeed(breaker)

    assert breaker.state is State.CLOSED


def test_one_failed_probe_opens_it_with_a_fresh_cooldown(opened, clock, fail):
    breaker = opened(cooldown=10, success_threshold=3)
    clock.advance(10)

    assert breaker.acquire().success()
    clock.advance(5)
    fail(breaker)

    assert breaker.state is State.OPEN
    assert refusal(breaker).retry_after == 10
    clock.advance(10)
    probe = breaker.acquire()
    refusal(breaker)  # and it begins with one probe again
    assert probe.success()
    assert breaker.snapshot().successes == 1


def test_it_closes_with_nothing_counted(make, clock, fail, succeed):
    breaker = make(trip=FailureCount(2, within=1000))
    fail(breaker, 2)
    clock.advance(10)

    succeed(breaker)
    fail(breaker)

    assert breaker.state is State.CLOSED


def test_half_open_tells_when_the_probe_will_lose_its_slot(opened, clock):
    breaker = opened(cooldown=10, probe_timeout=4)
    clock.advance(10)
    probe = breaker.acquire()

    waits = []
    for _ in range(3):
        waits.append(refusal(breaker).retry_after)
        clock.advance(1)

    assert waits == [4, 3, 2]
    assert probe.success()


def test_a_hung_probe_loses_its_slot(opened, clock):
    breaker = opened(cooldown=10, probe_timeout=4)
    expired = []
    breaker.on(ProbeExpired, expired.append)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(3.999)
    refusal(breaker)

    clock.advance(0.001)
    second = breaker.acquire()

    assert expired == [ProbeExpired(breaker)]
    refusal(breaker)
    assert second.success()
    assert breaker.state is State.CLOSED
    assert not hung.success()


@pytest.mark.parametrize("noticed", [True, False])
def test_the_verdict_of_a_probe_that_lost_its_slot_counts_while_half_open(opened, clock, noticed):
    """Else calls that take longer than the cooldown would never close a circuit."""
    breaker = opened(cooldown=10, success_threshold=5)
    expired = []
    breaker.on(ProbeExpired, expired.append)
    clock.advance(10)
    permits = []
    for _ in range(5):
        permits.append(breaker.acquire())
        clock.advance(12)
        if noticed:
            permits.append(breaker.acquire())
            permits.pop().ignore()
        assert permits.pop().success()

    assert breaker.state is State.CLOSED
    assert len(expired) == 5


def test_a_probe_that_lost_its_slot_and_fails_opens_the_circuit(opened, clock):
    breaker = opened(probe_timeout=4)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(4)
    second = breaker.acquire()

    assert hung.failure()

    assert breaker.state is State.OPEN
    assert not second.success()


def test_to_ignore_a_probe_that_lost_its_slot_gives_nothing_back_and_tells_it(opened, clock):
    breaker = opened(probe_timeout=4)
    expired = []
    breaker.on(ProbeExpired, expired.append)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(4)

    assert not hung.ignore()

    assert expired == [ProbeExpired(breaker)]
    assert breaker.acquire().success()


def test_a_probe_may_take_as_long_as_the_cooldown_by_default(opened, clock):
    breaker = opened(cooldown=7)
    clock.advance(7)

    probe = breaker.acquire()
    assert refusal(breaker).retry_after == 7
    clock.advance(6.999)

    assert probe.success()


def test_a_probe_may_take_as_long_as_the_cooldown_that_has_grown(opened, clock, fail):
    breaker = opened(cooldown=Backoff(7))
    clock.advance(7)
    fail(breaker)
    clock.advance(14)

    probe = breaker.acquire()

    assert refusal(breaker).retry_after == 14
    assert probe.success()


def test_all_of_several_hung_probes_lose_their_slots(opened, clock):
    breaker = opened(success_threshold=9, probe_timeout=4)
    clock.advance(10)
    assert breaker.acquire().success()

    hung = [breaker.acquire(), breaker.acquire()]
    clock.advance(1)
    assert refusal(breaker).retry_after == 3
    clock.advance(3)

    assert breaker.snapshot().probes == 0
    fresh = [breaker.acquire(), breaker.acquire()]
    refusal(breaker)
    assert [probe.success() for probe in hung] == [True, True]
    assert [probe.success() for probe in fresh] == [True, True]


def test_an_ignored_probe_gives_its_slot_back_at_once(opened, clock):
    breaker = opened()
    clock.advance(10)

    assert breaker.acquire().ignore()

    assert breaker.state is State.HALF_OPEN
    assert breaker.snapshot().probes == 0
    assert breaker.acquire().success()
    assert breaker.state is State.CLOSED


def test_an_abandoned_probe_gives_its_slot_back_when_it_is_collected(opened, clock):
    breaker = opened()
    clock.advance(10)

    probe = breaker.acquire()
    refusal(breaker)
    del probe
    gc.collect()

    assert breaker.snapshot().probes == 0
    assert breaker.acquire().success()


def test_a_probe_ignored_after_it_lost_its_slot_frees_no_other(opened, clock):
    breaker = opened(probe_timeout=4)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(4)
    second = breaker.acquire()

    assert not hung.ignore()

    refusal(breaker)
    assert second.success()


def test_a_probe_forgotten_after_it_lost_its_slot_frees_no_other(opened, clock):
    breaker = opened(probe_timeout=4)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(4)
    second = breaker.acquire()

    del hung
    gc.collect()

    refusal(breaker)
    assert second.success()


def test_a_probe_that_lost_its_slot_is_reported_although_another_settles_first(opened, clock):
    breaker = opened(success_threshold=3, probe_timeout=4)
    expired = []
    breaker.on(ProbeExpired, expired.append)
    clock.advance(10)
    breaker.acquire().success()
    hung = breaker.acquire()
    clock.advance(3)
    other = breaker.acquire()
    clock.advance(1)

    assert other.success()

    assert expired == [ProbeExpired(breaker)]
    assert hung.success()
    assert breaker.state is State.CLOSED


def test_a_slow_probe_counts_as_a_failed_one_where_slowness_does(make, clock):
    breaker = make(trip=SlowCallRate(0.5, slower_than=2, over=CallWindow(4), minimum_calls=2))
    breaker.call(clock.advance, 3)
    breaker.call(clock.advance, 3)
    clock.advance(10)

    breaker.call(clock.advance, 3)
    assert breaker.state is State.OPEN
    clock.advance(10)
    breaker.call(clock.advance, 2)

    assert breaker.state is State.CLOSED


def cooldowns(breaker, clock, fail, times):
    seen = []
    for _ in range(times):
        seen.append(refusal(breaker).retry_after)
        clock.advance(seen[-1])
        fail(breaker)
    return seen


def test_the_cooldown_grows_up_to_its_ceiling(opened, clock, fail):
    breaker = opened(cooldown=Backoff(1, multiplier=3, maximum=20))

    assert cooldowns(breaker, clock, fail, 5) == [1, 3, 9, 20, 20]


def test_the_cooldown_doubles_up_to_five_minutes_by_default(opened, clock, fail):
    breaker = opened(cooldown=Backoff(100))

    assert cooldowns(breaker, clock, fail, 4) == [100, 200, 300, 300]


def test_a_plain_cooldown_does_not_grow(opened, clock, fail):
    assert cooldowns(opened(cooldown=400), clock, fail, 3) == [400, 400, 400]


def test_growth_has_no_overflow(opened, clock, fail):
    breaker = opened(cooldown=Backoff(1, multiplier=1e300, maximum=1e9))

    assert cooldowns(breaker, clock, fail, 4) == [1, 1e9, 1e9, 1e9]


def test_closing_starts_the_growth_over(opened, clock, fail, succeed):
    breaker = opened(cooldown=Backoff(1))
    cooldowns(breaker, clock, fail, 3)
    clock.advance(100)

    succeed(breaker)
    assert breaker.snapshot().next_cooldown == 1
    fail(breaker)

    assert refusal(breaker).retry_after == 1


def test_jitter_shortens_the_cooldown_by_a_random_share(opened, clock, fail):
    draws = iter([0.0, 0.5, 0.999])
    breaker = opened(
        cooldown=Backoff(10, multiplier=2, maximum=20, jitter=0.5), random=draws.__next__
    )

    assert cooldowns(breaker, clock, fail, 2) == [10, 15]
    assert refusal(breaker).retry_after == pytest.approx(20 * (1 - 0.4995))


def test_one_number_is_drawn_for_each_opening(make, clock, fail):
    drawn = []

    def random():
        drawn.append(0.25)
        return drawn[-1]

    breaker = make(trip=ConsecutiveFailures(3), cooldown=Backoff(10, jitter=1), random=random)
    fail(breaker, 3)
    clock.advance(10)
    fail(breaker)

    assert drawn == [0.25, 0.25]


def test_a_failed_probe_is_one_of_the_failed_calls(make, clock, fail):
    breaker = make(trip=ConsecutiveFailures(2), cooldown=10)
    fail(breaker, 2)
    clock.advance(10)

    fail(breaker)

    assert breaker.snapshot().failed == 3


def test_nothing_is_drawn_without_jitter(make, fail):
    drawn = []

    def random():
        drawn.append(0.5)
        return 0.5

    breaker = make(trip=ConsecutiveFailures(1), cooldown=Backoff(10), random=random)
    fail(breaker)

    assert breaker.state is State.OPEN
    assert drawn == []


def test_a_circuit_that_closes_while_a_caller_reads_the_clock_lets_it_in(make, clock):
    breaker = make(trip=SlowCallRate(1, slower_than=2, over=CallWindow(1), minimum_calls=1))
    breaker.trip()
    breaker.on(CallRejected, print)  # else it is refused at a glance

    def reset():
        clock.when_read = None
        breaker.reset()

    clock.when_read = reset
    permit = breaker.acquire()

    assert breaker.state is State.CLOSED
    clock.advance(2)
    assert permit.success()
    assert breaker.state is State.CLOSED

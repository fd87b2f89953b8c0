"""Rules of one's own, and cooldowns asked of a function."""

from dataclasses import dataclass

import pytest

from halfopen import (
    Backoff,
    CallWindow,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    FailureRate,
    Reading,
    Rule,
    SlowCallRate,
    State,
    StateChanged,
    TimeWindow,
)


@dataclass(frozen=True)
class TotalTime:
    """Opens once calls have taken so many seconds in all."""

    seconds: float

    def start(self):
        return Spent(self, 0.0)


@dataclass(frozen=True)
class Spent:
    rule: TotalTime
    spent: float

    hears_successes = True

    def after(self, now, duration, *, failed):
        return Spent(self.rule, self.spent + 1 + failed)

    def trips(self, now, hung):
        return self.spent >= self.rule.seconds

    def reading(self, now, hung):
        return Reading(self.rule, self.spent, self.rule.seconds, 0, 0)


def test_a_rule_needs_one_method_and_a_counter_four(make, fail, succeed):
    breaker = make(trip=(TotalTime(5), ConsecutiveFailures(9)))
    changes = []
    breaker.on(StateChanged, changes.append)
    assert isinstance(TotalTime(5), Rule)

    succeed(breaker, 2)
    fail(breaker)
    assert breaker.snapshot().rules[0] == Reading(TotalTime(5), 4, 5, 0, 0)
    succeed(breaker)

    assert breaker.state is State.OPEN
    assert changes[0].reason == "TotalTime(seconds=5)"


def test_a_rule_that_raises_harms_no_call(make, fail, succeed, caplog):
    class Broken(TotalTime):
        def start(self):
            return BrokenCounter(self, 0.0)

    class BrokenCounter(Spent):
        def after(self, now, duration, *, failed):
            if failed:
                raise ZeroDivisionError
            return self

        def trips(self, now, hung):
            raise ZeroDivisionError

    breaker = make(trip=Broken(5))

    fail(breaker)
    succeed(breaker)

    assert breaker.state is State.CLOSED
    assert {record.message for record in caplog.records} == {
        "a rule raised, the call is not counted",
        "a rule raised, it opens nothing",
    }


def test_a_rule_starts_once_so_that_no_recovery_fails_for_it(make, clock, fail, succeed):
    starts = []

    class Once(TotalTime):
        def start(self):
            starts.append(self)
            if len(starts) > 1:
                raise ZeroDivisionError
            return super().start()

    breaker = make(trip=Once(5))
    breaker.trip()
    clock.advance(10)

    succeed(breaker)

    assert breaker.state is State.CLOSED
    assert breaker.snapshot().rules[0].value == 0


class TooMany(Exception):
    def __init__(self, retry_after):
        super().__init__(f"retry after {retry_after}")
        self.retry_after = retry_after


def wait_of(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    return refused.value.retry_after


def test_the_cooldown_may_come_from_the_failure(make, clock):
    asked = []

    def cooldown(error):
        asked.append(error)
        return getattr(error, "retry_after", 10)

    breaker = make(trip=ConsecutiveFailures(1), cooldown=cooldown)
    assert breaker.snapshot().next_cooldown == 10
    error = TooMany(60)

    breaker.acquire().failure(error)
    assert wait_of(breaker) == 60
    clock.advance(60)
    breaker.acquire().failure()
    assert wait_of(breaker) == 10
    breaker.trip()
    assert wait_of(breaker) == 10
    breaker.trip(for_=3)
    assert wait_of(breaker) == 3

    assert asked == [None, error, None, None]
    assert breaker.snapshot().next_cooldown == 10
    clock.advance(3)
    probe = breaker.acquire()
    assert wait_of(breaker) == 10  # the probe timeout
    assert probe.success()


@pytest.mark.parametrize("wrong", [0, -1, "soon", None, float("nan")])
def test_an_invalid_cooldown_is_logged_and_the_default_is_used(make, caplog, wrong):
    breaker = make(
        trip=ConsecutiveFailures(1), cooldown=lambda error: 10 if error is None else wrong
    )

    breaker.acquire().failure(TooMany(60))

    assert wait_of(breaker) == 10
    assert "the circuit opens for the usual one" in caplog.records[0].message


@pytest.mark.parametrize("wrong", [0, "soon", None])
def test_the_usual_cooldown_is_checked_when_the_breaker_is_made(wrong):
    with pytest.raises((TypeError, ValueError), match="what cooldown returns for None must be"):
        CircuitBreaker("x", cooldown=lambda _: wrong)


def test_a_random_that_raises_is_logged_and_harms_nobody(make, caplog):
    breaker = make(cooldown=Backoff(10, jitter=0.5), random=lambda: 1 / 0)

    breaker.trip()

    assert wait_of(breaker) == 10
    assert len(caplog.records) == 1


@pytest.fixture
def slow(make):
    return make(trip=SlowCallRate(0.5, slower_than=2, over=CallWindow(4), minimum_calls=2))


def test_a_call_that_hangs_for_ever_is_slow(slow, clock):
    hanging = [slow.acquire(), slow.acquire()]
    clock.advance(2)
    assert slow.snapshot().rules[0].bad == 0
    clock.advance(0.1)
    assert slow.snapshot().rules[0] == Reading(slow.snapshot().rules[0].rule, 1, 0.5, 2, 2)

    with pytest.raises(CircuitOpen):
        slow.acquire()

    assert slow.state is State.OPEN
    assert not any(permit.success() for permit in hanging)


def test_calls_that_hang_open_the_circuit_over_a_window_of_time(make, clock):
    breaker = make(trip=SlowCallRate(0.5, slower_than=2, over=TimeWindow(60), minimum_calls=3))
    breaker.call(str)
    hanging = [breaker.acquire(), breaker.acquire()]
    clock.advance(3)

    with pytest.raises(CircuitOpen):
        breaker.acquire()

    assert len(hanging) == 2


def test_a_cooldown_is_not_asked_about_what_is_no_exception(make):
    asked = []

    def cooldown(error):
        asked.append(error)
        return 10

    breaker = make(trip=ConsecutiveFailures(1), cooldown=cooldown)
    breaker.acquire().failure(KeyboardInterrupt())

    assert asked == [None, None]
    assert wait_of(breaker) == 10


def test_a_call_that_hangs_counts_once(slow, clock):
    hanging = slow.acquire()
    clock.advance(3)
    assert slow.snapshot().rules[0].calls == 1

    assert hanging.success()

    assert slow.snapshot().rules[0].calls == 1
    assert slow.state is State.CLOSED


@pytest.mark.parametrize("end", ["ignore", "forget"])
def test_a_call_that_is_ignored_or_forgotten_hangs_no_more(slow, clock, end):
    permit = slow.acquire()
    clock.advance(3)

    if end == "ignore":
        assert permit.ignore()
    del permit

    assert slow.snapshot().rules[0].calls == 0


def test_hanging_calls_push_the_oldest_out_of_a_window_of_calls(slow, clock, succeed):
    succeed(slow, 4)
    assert slow.snapshot().rules[0].value == 0
    hanging = [slow.acquire()]
    clock.advance(3)
    assert (slow.snapshot().rules[0].bad, slow.snapshot().rules[0].calls) == (1, 4)
    hanging += [slow.acquire() for _ in range(5)]
    clock.advance(3)

    assert (slow.snapshot().rules[0].bad, slow.snapshot().rules[0].calls) == (4, 4)


def test_hanging_calls_leave_room_for_the_latest_that_ended(make, clock):
    breaker = make(trip=SlowCallRate(1.0, slower_than=2, over=CallWindow(4), minimum_calls=4))
    for seconds in (3, 0, 3):
        breaker.call(clock.advance, seconds)

    hanging = [breaker.acquire(), breaker.acquire()]
    clock.advance(3)
    reading = breaker.snapshot().rules[0]
    assert (reading.bad, reading.calls) == (3, 4)  # two hang, of the last two one was slow
    hanging += [breaker.acquire() for _ in range(2)]
    clock.advance(3)
    reading = breaker.snapshot().rules[0]

    assert (reading.bad, reading.calls) == (4, 4)
    assert len(hanging) == 4


def test_hanging_calls_count_on_top_of_a_window_of_time(make, clock, succeed):
    breaker = make(trip=SlowCallRate(1.0, slower_than=2, over=TimeWindow(60), minimum_calls=9))
    succeed(breaker, 3)
    breaker.call(clock.advance, 3)

    hanging = [breaker.acquire(), breaker.acquire()]
    clock.advance(3)
    reading = breaker.snapshot().rules[0]

    assert (reading.bad, reading.calls) == (3, 6)
    assert len(hanging) == 2


def test_a_rule_is_asked_when_a_call_comes_only_if_another_hangs(make, clock):
    asked = []

    class Asked:
        slower_than = 2
        hears_successes = False

        def start(self):
            return self

        def after(self, now, duration, *, failed):
            return self

        def trips(self, now, hung):
            asked.append(hung)
            return False

        def reading(self, now, hung):
            return Reading(self, 0, 1, 0, 0)

    breaker = make(trip=Asked())
    held = [breaker.acquire(), breaker.acquire()]
    assert asked == []
    clock.advance(3)
    held.append(breaker.acquire())

    assert asked == [2]


def test_only_the_rule_that_asks_hears_of_hanging_calls(make, clock):
    breaker = make(
        trip=(
            FailureRate(0.5, over=CallWindow(4), minimum_calls=2),
            SlowCallRate(0.9, slower_than=9, over=CallWindow(4), minimum_calls=4),
        )
    )
    held = [breaker.acquire() for _ in range(3)]
    clock.advance(10)

    assert [reading.calls for reading in breaker.snapshot().rules] == [0, 3]
    assert len(held) == 3


def items():
    yield from range(3)


def test_the_time_of_a_generators_consumer_does_not_count(slow, clock):
    for _ in range(3):
        for _ in slow(items)():
            clock.advance(60)

    assert slow.state is State.CLOSED
    assert slow.snapshot().rules[0] == Reading(slow.snapshot().rules[0].rule, 0, 0.5, 0, 3)


def test_the_time_of_a_generator_itself_counts(slow, clock):
    @slow
    def work():
        clock.advance(1.5)
        received = yield 1
        assert received == "sent"
        clock.advance(1.5)
        try:
            yield 2
        except KeyError:
            yield 3
        return "end"

    for _ in range(2):
        stream = work()
        next(stream)
        clock.advance(10)
        assert stream.send("sent") == 2
        assert stream.throw(KeyError()) == 3
        with pytest.raises(StopIteration) as stopped:
            next(stream)
        assert stopped.value.value == "end"

    assert slow.state is State.OPEN


def test_a_generator_closed_early_is_closed_and_hangs_no_more(slow, clock):
    closed = []

    @slow
    def stream():
        try:
            yield 1
        finally:
            closed.append(True)

    started = stream()
    next(started)
    clock.advance(10)
    assert slow.snapshot().rules[0].calls == 0
    started.close()

    assert closed == [True]
    assert slow.snapshot().rules[0].calls == 0


def test_a_step_of_a_generator_that_hangs_is_slow(slow, clock):
    seen = []

    @slow
    def stream():
        yield 1
        clock.advance(3)
        seen.append(slow.snapshot().rules[0].bad)
        yield 2

    assert list(stream()) == [1, 2]
    assert seen == [1]


def test_calls_that_begin_while_the_hanging_ones_are_counted_harm_nobody(clock):
    class Sly(float):
        """A time that has another call begin when it is compared with the start of one."""

        __slots__ = ()

        def __sub__(self, other):
            if len(others) < 3:
                others.append(None)
                others[-1] = breaker.acquire()
            return float(self) - other

    others = []
    breaker = CircuitBreaker(
        "x",
        trip=SlowCallRate(0.5, slower_than=2, over=CallWindow(9), minimum_calls=9),
        clock=lambda: clock.now,
    )
    held = [breaker.acquire(), breaker.acquire()]
    clock.now = Sly(clock.now + 3)

    reading = breaker.snapshot().rules[0]

    assert len(others) == 3
    assert (reading.bad, reading.calls) == (len(held), len(held))

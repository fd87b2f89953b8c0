import copy
import dataclasses
import gc
import logging
import time
import weakref

import pytest

from halfopen import (
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    CallWindow,
    CircuitOpen,
    ConsecutiveFailures,
    Event,
    FailureCount,
    ProbeExpired,
    SlowCallRate,
    State,
    StateChanged,
)

ALL = [StateChanged, CallSucceeded, CallFailed, CallIgnored, CallRejected, ProbeExpired]


@pytest.fixture
def breaker(make):
    return make(trip=FailureCount(2, within=30), cooldown=10)


def refuse(breaker):
    with pytest.raises(CircuitOpen):
        breaker.acquire()


def test_an_outage_is_told_from_beginning_to_end(breaker, clock, fail, succeed, boom):
    told = []
    for event in ALL:
        breaker.on(event, told.append)

    succeed(breaker)
    fail(breaker, 2)
    refuse(breaker)
    clock.advance(10)
    breaker.acquire().ignore()
    succeed(breaker)

    named = [event if type(event) is not CallFailed else CallFailed for event in told]
    assert named == [
        CallSucceeded(breaker),
        CallFailed,
        CallFailed,
        StateChanged(breaker, State.CLOSED, State.OPEN, "FailureCount(n=2, within=30)"),
        CallRejected(breaker, State.OPEN, 10),
        StateChanged(breaker, State.OPEN, State.HALF_OPEN, "cooldown elapsed"),
        CallIgnored(breaker, None),
        CallSucceeded(breaker),
        StateChanged(breaker, State.HALF_OPEN, State.CLOSED, "recovered"),
    ]


def test_a_hung_outage_is_told(breaker, clock, fail):
    told = []
    for event in (CallRejected, ProbeExpired, StateChanged):
        breaker.on(event, told.append)
    fail(breaker, 2)
    clock.advance(10)

    hung = breaker.acquire()
    refuse(breaker)
    clock.advance(10)
    probe = breaker.acquire()
    probe.failure()
    hung.failure()

    assert told[2:] == [
        CallRejected(breaker, State.HALF_OPEN, 10),
        ProbeExpired(breaker),
        StateChanged(breaker, State.HALF_OPEN, State.OPEN, "a probe failed"),
    ]


def test_a_neutral_call_is_told_with_its_error(breaker):
    told = []
    breaker.on(CallIgnored, told.append)
    error = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        breaker.call(raise_, error)

    assert told == [CallIgnored(breaker, error)]


def test_a_change_says_what_was_done(make, clock):
    breaker = make(
        trip=SlowCallRate(0.5, slower_than=1, over=CallWindow(2), minimum_calls=2), cooldown=10
    )
    reasons = []
    breaker.on(StateChanged, lambda change: reasons.append(change.reason))

    breaker.trip()
    clock.advance(10)
    breaker.call(clock.advance, 2)
    breaker.reset()
    breaker.trip(for_=60, reason="maintenance")

    assert reasons == [
        "tripped by hand",
        "cooldown elapsed",
        "a probe was slow",
        "reset by hand",
        "maintenance",
    ]


def test_a_change_names_its_breaker_and_what_tripped(make, fail):
    breaker = make(trip=(FailureCount(9, within=30), ConsecutiveFailures(2)))
    changes = []
    breaker.on(StateChanged, changes.append)

    fail(breaker, 2)

    (change,) = changes
    assert change.breaker is breaker
    assert change.breaker.name == "upstream"
    assert change.reason == "ConsecutiveFailures(n=2)"


def test_a_failed_call_is_told_with_its_error(breaker):
    told = []
    breaker.on(CallFailed, told.append)
    error = ValueError()

    breaker.acquire().failure(error)
    breaker.acquire().failure()

    assert told == [CallFailed(breaker, error), CallFailed(breaker, None)]


@pytest.mark.parametrize("event", ALL)
def test_events_are_frozen_and_slotted(event, breaker):
    names = [field.name for field in dataclasses.fields(event)]
    happened = event(breaker, *names[1:])

    assert names[0] == "breaker"
    assert not hasattr(happened, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        happened.breaker = None


def test_the_fields_of_a_change_come_in_their_order():
    fields = [field.name for field in dataclasses.fields(StateChanged)]
    assert fields == ["breaker", "old", "new", "reason"]


def test_unsubscribing_ends_it(make, fail):
    breaker = make()
    told = []
    stay = breaker.on(CallFailed, lambda _: told.append("stays"))
    leave = breaker.on(CallFailed, lambda _: told.append("leaves"))

    fail(breaker)
    leave()
    leave()
    breaker.acquire().failure()
    stay()
    breaker.acquire().failure()

    assert told == ["stays", "leaves", "stays"]


def test_one_listener_may_listen_twice_and_leave_once(breaker):
    told = []
    leave = breaker.on(CallFailed, told.append)
    breaker.on(CallFailed, told.append)

    leave()
    breaker.acquire().failure()

    assert len(told) == 1


def test_once_hears_one_event(breaker, make):
    told = []
    breaker.once(CallFailed, told.append)

    breaker.acquire().failure()
    breaker.acquire().failure()

    assert len(told) == 1


def test_once_hears_one_event_though_it_causes_another(make):
    breaker = make()
    told = []

    def listener(event):
        told.append(event)
        breaker.acquire().failure()

    breaker.once(CallFailed, listener)
    breaker.acquire().failure()

    assert len(told) == 1
    assert breaker.snapshot().failed == 2


def test_once_can_be_called_off(breaker):
    told = []

    breaker.once(CallFailed, told.append)()
    breaker.acquire().failure()

    assert told == []


def test_a_listener_that_raises_is_logged_and_harms_nobody(breaker, caplog):
    told = []

    def broken(_):
        raise ZeroDivisionError

    breaker.on(CallFailed, broken)
    breaker.on(CallFailed, told.append)
    own = ValueError("own")

    with pytest.raises(ValueError) as raised:
        breaker.call(raise_, own)

    assert raised.value is own
    assert len(told) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("halfopen", logging.ERROR)
    assert "CallFailed" in record.message
    assert record.exc_info[0] is ZeroDivisionError


def raise_(error):
    raise error


@pytest.mark.parametrize(("event", "reason"), [(CallSucceeded, "success"), (CallIgnored, "ignore")])
def test_a_listener_that_raises_changes_no_verdict(breaker, event, reason, caplog):
    def broken(_):
        raise ZeroDivisionError

    breaker.on(event, broken)

    assert getattr(breaker.acquire(), reason)()
    assert len(caplog.records) == 1


def test_a_listener_stopped_from_outside_does_not_silence_the_others(breaker):
    told = []

    def interrupted(_):
        raise KeyboardInterrupt

    breaker.once(CallFailed, interrupted)
    breaker.on(StateChanged, told.append)

    with pytest.raises(KeyboardInterrupt):
        breaker.acquire().failure()
    breaker.trip()

    assert len(told) == 1


def test_a_listener_may_use_the_breaker_and_events_stay_in_order(make, clock, fail):
    breaker = make(trip=ConsecutiveFailures(1))
    told = []

    def reset_at_once(change):
        told.append(("first", change.new))
        if change.new is State.OPEN:
            breaker.reset()
            assert breaker.state is State.CLOSED

    breaker.on(StateChanged, reset_at_once)
    breaker.on(StateChanged, lambda change: told.append(("second", change.new)))

    fail(breaker)

    assert breaker.state is State.CLOSED
    assert told == [
        ("first", State.OPEN),
        ("second", State.OPEN),
        ("first", State.CLOSED),
        ("second", State.CLOSED),
    ]


def test_a_listener_may_make_calls_subscribe_and_read(breaker):
    seen = []

    def busy(event):
        seen.append(event.breaker.snapshot().state)
        event.breaker.once(CallSucceeded, seen.append)
        event.breaker.call(str)

    breaker.once(CallFailed, busy)
    breaker.acquire().failure()

    assert seen == [State.CLOSED, CallSucceeded(breaker)]


def test_listening_ends_the_short_way_and_leaving_brings_it_back(breaker, clock):
    told = []
    leave = breaker.on(CallSucceeded, told.append)
    breaker.acquire().success()
    leave()
    clock.reads = 0

    breaker.acquire().success()

    assert len(told) == 1
    assert clock.reads == 0


@pytest.mark.parametrize("event", [int, "StateChanged", None])
def test_only_the_events_can_be_listened_to(breaker, event):
    with pytest.raises(TypeError, match="event"):
        breaker.on(event, print)


async def coroutine_function(_): ...


@pytest.mark.parametrize("listener", [None, coroutine_function])
@pytest.mark.parametrize("subscribe", ["on", "once"])
def test_a_listener_must_be_a_plain_function(breaker, listener, subscribe):
    with pytest.raises(TypeError, match=r"^listener must "):
        getattr(breaker, subscribe)(CallFailed, listener)


def test_an_unsubscribed_listener_is_not_kept_alive(breaker):
    class Listener:
        def __call__(self, event): ...

    listener = Listener()
    reference = weakref.ref(listener)
    leave = breaker.on(CallFailed, listener)
    breaker.acquire().failure()

    leave()
    del listener, leave
    gc.collect()

    assert reference() is None


def test_one_listener_may_hear_of_everything(breaker, clock, fail, succeed):
    everything, apart = [], []
    leave = breaker.on(Event, everything.append)
    for event in ALL:
        breaker.on(event, apart.append)

    succeed(breaker)
    fail(breaker, 2)
    refuse(breaker)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(10)
    breaker.acquire().ignore()
    hung.success()
    leave()
    fail(breaker)

    assert {type(event) for event in everything} == set(ALL)
    assert everything == apart[:-1]


def test_once_for_all_events_hears_one(breaker, fail):
    told = []
    breaker.once(Event, told.append)

    fail(breaker, 2)

    assert len(told) == 1


def test_an_event_can_be_written_out(breaker, fail):
    told = []
    breaker.on(Event, told.append)
    fail(breaker, 2)

    written = [dataclasses.asdict(event) for event in told]

    assert written[-1] == {
        "breaker": breaker,
        "old": State.CLOSED,
        "new": State.OPEN,
        "reason": "FailureCount(n=2, within=30)",
    }
    assert copy.deepcopy(breaker) is breaker


def test_too_many_events_that_wait_push_out_the_oldest_and_are_counted(make):
    breaker = make(trip=ConsecutiveFailures(10**6))
    heard = []

    def busy(event):
        heard.append(event.error.args[0])
        if len(heard) == 1:
            for number in range(1, 4_101):
                breaker.acquire().failure(ValueError(number))

    breaker.on(CallFailed, busy)
    breaker.acquire().failure(ValueError(0))
    for _ in range(100):
        breaker.snapshot()  # goes on where a caller had been busy for too long

    assert breaker.events_dropped == 101
    assert heard == [0, *range(101, 4_101)]


def test_a_caller_leaves_slow_listeners_to_the_next(make):
    """In a burst of 400 calls none delivers the events of all."""
    breaker = make(trip=ConsecutiveFailures(10**6))
    heard = []

    def slow(event):
        heard.append(event)
        if len(heard) == 1:  # what other threads do while it is told
            for _ in range(400):
                breaker.acquire().failure()
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass

    breaker.on(CallFailed, slow)
    breaker.acquire().failure()

    assert 1 <= len(heard) < 100
    while len(heard) < 401:
        before = len(heard)
        breaker.snapshot()
        assert before < len(heard) < before + 100


def test_a_healthy_call_delivers_the_events_left_to_it(make):
    breaker = make(trip=FailureCount(10**6, within=1))
    heard = []

    def slow(event):
        heard.append(event)
        if len(heard) == 1:
            for _ in range(100):
                breaker.acquire().failure()
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass

    breaker.on(CallFailed, slow)
    breaker.acquire().failure()
    assert len(heard) < 100

    while len(heard) < 101:
        before = len(heard)
        breaker.call(int)
        assert len(heard) > before


@pytest.mark.parametrize("wrong", ["text", 5, ValueError])
def test_a_failure_is_an_exception_or_nothing(breaker, wrong):
    permit = breaker.acquire()

    with pytest.raises(TypeError, match=r"^failure\(\) takes an exception or nothing"):
        permit.failure(wrong)

    assert permit.failure()


@pytest.mark.parametrize("outcome", ["success", "failure"])
@pytest.mark.parametrize("rule", [FailureCount(9, within=30), ConsecutiveFailures(9)])
def test_any_next_call_tells_what_an_interrupted_listener_left(make, rule, outcome):
    breaker, told = make(trip=rule), []
    breaker.acquire().failure()  # so that the rule hears of successes, if it ever does

    def interrupted(_):
        raise KeyboardInterrupt

    breaker.on(CallIgnored, interrupted)
    breaker.on(CallIgnored, told.append)
    with pytest.raises(KeyboardInterrupt):
        breaker.acquire().ignore()
    assert told == []

    getattr(breaker.acquire(), outcome)()

    assert len(told) == 1

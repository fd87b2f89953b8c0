"""A restart does not forget an open circuit."""

import json
import time

import pytest

from halfopen import Backoff, CircuitBreaker, CircuitOpen, ConsecutiveFailures, State


@pytest.fixture
def restarted(clock):
    """A breaker of another process, whose monotonic clock knows nothing of the first."""

    def restarted(saved, **settings):
        saved = json.loads(json.dumps(saved))
        return CircuitBreaker("again", clock=lambda: clock.now - 500, state=saved, **settings)

    return restarted


def wait_of(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    return refused.value.retry_after


def test_an_open_circuit_is_open_for_what_is_left_of_its_cooldown(make, clock, fail, restarted):
    breaker = make(trip=ConsecutiveFailures(1), cooldown=1000)
    fail(breaker)
    clock.advance(400)

    again = restarted(breaker.export())

    assert again.state is State.OPEN
    assert wait_of(again) == pytest.approx(600, abs=30)
    clock.advance(600)
    assert again.acquire().success()
    assert again.state is State.CLOSED


def test_the_time_until_the_restart_counts(make, restarted):
    breaker = make(cooldown=1000)
    breaker.trip()
    saved = breaker.export()

    assert wait_of(restarted(saved | {"at": time.time() - 700})) == pytest.approx(300, abs=30)
    assert restarted(saved | {"at": time.time() - 2000}).acquire().success()
    # A wall clock that was set back.
    assert wait_of(restarted(saved | {"at": time.time() + 5000})) == pytest.approx(1000, abs=30)


def test_cooldowns_go_on_growing(make, clock, fail, restarted):
    backoff = Backoff(10)
    breaker = make(trip=ConsecutiveFailures(1), cooldown=backoff)
    fail(breaker)
    clock.advance(10)
    fail(breaker)
    assert breaker.snapshot().next_cooldown == 40

    again = restarted(breaker.export(), cooldown=backoff, trip=ConsecutiveFailures(1))

    assert again.snapshot().next_cooldown == 40
    clock.advance(20)
    probe = again.acquire()
    assert wait_of(again) == 20
    assert probe.failure()
    assert wait_of(again) == 40


def test_a_half_open_circuit_is_probed_at_once(make, clock, restarted):
    breaker = make()
    breaker.trip()
    clock.advance(10)
    probe = breaker.acquire()

    again = restarted(breaker.export())

    assert again.state is State.OPEN
    assert again.acquire().success()
    assert probe.success()


def test_a_closed_circuit_is_closed_and_as_new(make, fail, restarted):
    breaker = make(trip=ConsecutiveFailures(2))
    fail(breaker)

    again = restarted(breaker.export(), trip=ConsecutiveFailures(2))
    fail(again)

    assert again.state is State.CLOSED


@pytest.mark.parametrize("beneath", [State.CLOSED, State.OPEN])
def test_an_isolation_ends_with_its_process(make, restarted, beneath):
    breaker = make()
    if beneath is State.OPEN:
        breaker.trip()
    handle = breaker.isolate()

    again = restarted(breaker.export())

    assert again.state is beneath
    handle.release()


def test_what_is_exported_holds_no_monotonic_time(make, clock):
    clock.now = 123456.0
    breaker = make(cooldown=10)
    breaker.trip()
    clock.advance(4)

    saved = breaker.export()

    assert saved.pop("at") == pytest.approx(time.time(), abs=30)
    assert saved == {"version": 1, "state": "open", "remaining": 6, "cooldowns": 1}


GOOD = {"version": 1, "state": "open", "remaining": 6.0, "cooldowns": 1, "at": 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        GOOD | {"version": 2},
        GOOD | {"state": "ajar"},
        GOOD | {"state": "isolated"},
        GOOD | {"remaining": "soon"},
        GOOD | {"remaining": -1},
        GOOD | {"at": None},
        GOOD | {"cooldowns": True},
    ],
)
def test_what_was_never_exported_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^state must be what export\(\) returned"):
        CircuitBreaker("x", state=wrong)


def test_a_state_is_a_mapping():
    with pytest.raises(TypeError, match=r"^state must be what export\(\) returned"):
        CircuitBreaker("x", state="open")

import contextlib
import copy
import gc
import math
import pickle
import weakref
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from multiprocessing import get_context

import pytest

from halfopen import (
    CircuitBreaker,
    CircuitBreakerError,
    CircuitOpen,
    ConsecutiveFailures,
    State,
    StateChanged,
)


@pytest.fixture
def breaker(make):
    return make(trip=ConsecutiveFailures(1), cooldown=10)


def refusal(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.call(int)
    return refused.value


def raise_(error):
    raise error


def last_failure(breaker, error):
    with pytest.raises(type(error)):
        breaker.call(raise_, error)
    return refusal(breaker).last_failure


def test_a_refusal_says_all_about_it(breaker):
    with pytest.raises(ValueError):
        breaker.call(int, "nonsense")

    error = refusal(breaker)

    assert isinstance(error, CircuitBreakerError)
    assert (error.name, error.state, error.retry_after) == ("upstream", State.OPEN, 10)
    assert isinstance(error.last_failure, ValueError)
    assert str(error) == (
        "circuit 'upstream' is open, retry in 10 s; last failure: "
        "ValueError(\"invalid literal for int() with base 10: 'nonsense'\")"
    )


def test_a_refusal_without_a_failure_says_so(breaker):
    breaker.trip()

    error = refusal(breaker)

    assert error.last_failure is None
    assert str(error) == "circuit 'upstream' is open, retry in 10 s"


def test_each_refusal_is_a_new_instance(breaker, clock):
    breaker.trip()
    assert refusal(breaker) is not refusal(breaker)

    clock.advance(10)
    probe = breaker.acquire()
    assert refusal(breaker) is not refusal(breaker)
    probe.success()


def test_the_wait_is_finite_and_decreases(breaker, clock):
    breaker.trip()
    waits = []
    for _ in range(9):
        waits.append(refusal(breaker).retry_after)
        clock.advance(1.1)

    assert all(math.isfinite(wait) and wait > 0 for wait in waits)
    assert waits == sorted(waits, reverse=True)
    assert len(set(waits)) == 9


def test_a_refusal_survives_pickling_and_copying(breaker):
    last_failure(breaker, ValueError("down"))
    error = refusal(breaker)

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (twin.name, twin.state, twin.retry_after) == ("upstream", State.OPEN, 10)
        assert str(twin) == str(error)


def test_the_last_failure_has_type_and_text_but_no_traceback(breaker):
    cause = KeyError("cause")
    error = ConnectionError("down")
    error.__cause__ = cause
    error.add_note("note")

    kept = last_failure(breaker, error)

    assert type(kept) is ConnectionError
    assert kept is not error
    assert str(kept) == "down"
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    assert not hasattr(kept, "__notes__")
    assert error.__traceback__ is not None
    assert error.__cause__ is cause


def test_the_last_failure_is_the_last_one(make):
    breaker = make(trip=ConsecutiveFailures(2))
    breaker.acquire().failure(ValueError("first"))
    breaker.acquire().failure(ValueError("second"))

    assert str(refusal(breaker).last_failure) == "second"


def test_the_failure_of_a_probe_is_the_last_failure(breaker, clock):
    last_failure(breaker, ValueError("first"))
    clock.advance(10)

    assert str(last_failure(breaker, ValueError("second"))) == "second"


def test_a_refusal_in_half_open_says_all_about_it(breaker, clock):
    last_failure(breaker, ValueError("down"))
    clock.advance(10)
    probe = breaker.acquire()

    error = refusal(breaker)

    assert (error.name, error.state, error.retry_after) == ("upstream", State.HALF_OPEN, 10)
    assert str(error.last_failure) == "down"
    assert probe.success()


def test_a_failure_that_opens_nothing_is_not_kept(make):
    breaker = make(trip=ConsecutiveFailures(2))
    breaker.acquire().failure(ValueError("first"))
    breaker.trip()

    assert refusal(breaker).last_failure is None


def test_opening_by_hand_forgets_what_opened_it_before(breaker):
    last_failure(breaker, ValueError("first"))
    breaker.trip()

    assert refusal(breaker).last_failure is None


def test_a_listener_finds_the_failure_that_opened_the_circuit(breaker):
    kept = []
    breaker.on(StateChanged, lambda change: kept.append(change.breaker.snapshot().last_failure))

    breaker.acquire().failure(ValueError("down"))

    assert [str(failure) for failure in kept] == ["down"]


def test_a_failure_described_too_late_describes_no_later_opening(breaker):
    class Slow(Exception):
        def __str__(self):
            if self.args and breaker.state is State.CLOSED:
                breaker.trip()
            return "slow"

    assert not breaker.acquire().failure(Slow("once"))

    assert breaker.state is State.OPEN
    assert breaker.snapshot().last_failure is None


def test_recovery_forgets_the_last_failure(breaker, clock):
    last_failure(breaker, ValueError("first"))
    clock.advance(10)
    breaker.call(int)
    breaker.trip()

    assert refusal(breaker).last_failure is None


class Payload:
    pass


class Carrier(Exception):
    def __init__(self, message, *, payload):
        super().__init__(message)
        self.payload = payload


@pytest.mark.parametrize(
    "make_error",
    [
        lambda _: ValueError("down"),
        ValueError,
        lambda payload: Carrier("down", payload=payload),
    ],
    ids=["plain", "as an argument", "as an attribute"],
)
@pytest.mark.parametrize("style", ["call", "decorator", "guard"])
def test_nothing_a_failed_call_touched_is_kept_alive(breaker, make_error, style):
    payload = Payload()
    reference = weakref.ref(payload)

    def call(payload):
        raise make_error(payload)

    def attempt(payload):
        if style == "call":
            breaker.call(call, payload)
        elif style == "decorator":
            breaker(call)(payload)
        else:
            with breaker.guard():
                call(payload)

    with contextlib.suppress(Exception):
        attempt(payload)
    del payload
    gc.collect()

    error = refusal(breaker)
    assert error.last_failure is not None
    assert reference() is None


def test_a_call_leaves_nothing_for_the_collector(make):
    breaker = make(trip=ConsecutiveFailures(10))
    payload = Payload()
    reference = weakref.ref(payload)

    def call(payload):
        raise ValueError("down")

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            breaker(call)(payload)
        del payload
        assert reference() is None
    finally:
        gc.enable()


class Unprintable(Exception):
    def __str__(self):
        raise ZeroDivisionError


class Unrepresentable(Exception):
    def __repr__(self):
        return self.missing


class Picky(Exception):
    def __init__(self, *, code):
        self.code = code


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ExceptionGroup("many", [ValueError("one")]), "ExceptionGroup: many (1 sub-exception)"),
        (Unprintable(), "Unprintable: <exception str() failed>"),
        (Unrepresentable("down"), "Unrepresentable: down"),
    ],
)
def test_an_error_that_cannot_be_copied_is_quoted(breaker, error, text):
    kept = last_failure(breaker, error)

    assert type(kept) is CircuitBreakerError
    assert str(kept).endswith(text)


class Worded(Exception):
    """Has its text from an attribute, which is not kept."""

    def __init__(self, code):
        super().__init__()
        self.code = code

    def __str__(self):
        return f"code {getattr(self, 'code', None)}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Picky(code=3), "Picky"),
        (Carrier("down", payload=1), "Carrier: down"),
        (Worded(7), "Worded: code 7"),
        (type("Local", (ValueError,), {})("down"), "Local: down"),
    ],
)
def test_what_would_not_survive_pickling_with_its_text_is_quoted(breaker, error, text):
    kept = last_failure(breaker, error)

    assert type(kept) is CircuitBreakerError
    assert str(kept).endswith(text)
    assert str(pickle.loads(pickle.dumps(refusal(breaker))).last_failure) == str(kept)


def guarded_in_another_process():
    breaker = CircuitBreaker("x", trip=ConsecutiveFailures(1))
    with contextlib.suppress(Picky):
        breaker.call(raise_, Picky(code=3))
    breaker.call(int)


def test_a_refusal_comes_back_from_a_process_pool():
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        for _ in range(2):
            with pytest.raises(CircuitOpen) as refused:
                pool.submit(guarded_in_another_process).result(60)

    assert "Picky" in str(refused.value.last_failure)


def test_a_refusal_made_by_hand_can_be_printed():
    assert str(CircuitOpen("x")) == "circuit 'x' is open, retry in 0 s"
    assert str(CircuitOpen()).startswith("circuit ''")
    refused = CircuitOpen("x", State.HALF_OPEN, 2.5)
    assert (refused.state, refused.retry_after, refused.last_failure) == (
        State.HALF_OPEN,
        2.5,
        None,
    )


def test_a_very_long_failure_is_cut_in_the_text_of_a_refusal(breaker):
    last_failure(breaker, ValueError("x" * 100_000))

    assert len(str(refusal(breaker))) < 600
    assert len(str(refusal(breaker).last_failure)) == 100_000


def test_a_system_error_keeps_its_number(breaker):
    kept = last_failure(breaker, FileNotFoundError(2, "No such file"))

    assert type(kept) is FileNotFoundError
    assert kept.errno == 2


def test_a_counted_refusal_is_kept_without_the_failure_that_it_quotes(make):
    breaker = make(trip=ConsecutiveFailures(1), failure_on=CircuitOpen)
    inner = CircuitOpen("inner", State.HALF_OPEN, 3.0, ValueError("down"))

    breaker.acquire().failure(inner)

    assert breaker.snapshot().last_failure.args == ("inner", State.HALF_OPEN, 3.0, None)


def test_an_argument_that_is_no_plain_value_is_kept_as_its_text(make):
    breaker = make(trip=ConsecutiveFailures(1))

    breaker.acquire().failure(ValueError(Decimal("1.5")))

    kept = breaker.snapshot().last_failure
    assert type(kept) is ValueError
    assert kept.args == ("1.5",)

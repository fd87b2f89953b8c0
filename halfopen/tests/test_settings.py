import math

import pytest

from halfopen import (
    Backoff,
    BreakerRegistry,
    CallWindow,
    CircuitBreaker,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    SlowCallRate,
    State,
    TimeWindow,
)

NO_TIME = [0, 0.0, -1, -0.001, math.nan, math.inf, -math.inf, 10**400]
NO_COUNT = [0, -1]
NO_NUMBER = ["10", None, True, False, 1j, [1]]
NO_WHOLE_NUMBER = [*NO_NUMBER, 1.0, 2.5, math.nan, math.inf]


def rate(**settings):
    return FailureRate(**{"rate": 0.5, "over": CallWindow(10), "minimum_calls": 5} | settings)


def slow(**settings):
    defaults = {"rate": 0.5, "slower_than": 1, "over": TimeWindow(10), "minimum_calls": 5}
    return SlowCallRate(**defaults | settings)


TIMES = {
    "cooldown": lambda t: CircuitBreaker("x", cooldown=t),
    "within": lambda t: FailureCount(5, within=t),
    "seconds": TimeWindow,
    "slower_than": lambda t: slow(slower_than=t),
    "initial": Backoff,
    "maximum": lambda t: Backoff(1, maximum=t),
    "probe_timeout": lambda t: CircuitBreaker("x", probe_timeout=t),
    "for_": lambda t: CircuitBreaker("x").trip(for_=t),
}
COUNTS = {
    "success_threshold": lambda n: CircuitBreaker("x", success_threshold=n),
    "n": CallWindow,
    "n of ConsecutiveFailures": ConsecutiveFailures,
    "n of FailureCount": lambda n: FailureCount(n, within=1),
    "minimum_calls": lambda n: rate(minimum_calls=n),
    "minimum_calls of SlowCallRate": lambda n: slow(minimum_calls=n),
    "max_size": lambda n: BreakerRegistry(CircuitBreaker, max_size=n),
}
NULLABLE = {"probe_timeout", "for_", "max_size"}


@pytest.mark.parametrize("name", TIMES)
def test_a_time_is_positive_and_finite(name):
    for wrong in NO_TIME:
        with pytest.raises(ValueError, match=rf"^{name} must be "):
            TIMES[name](wrong)
    for wrong in NO_NUMBER:
        if wrong is None and name in NULLABLE:
            continue
        with pytest.raises(TypeError, match=rf"^{name} must be a number"):
            TIMES[name](wrong)
    TIMES[name](300)
    TIMES[name](299.5)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_a_whole_number_of_at_least_one(name):
    parameter = name.split()[0]
    for wrong in NO_COUNT:
        with pytest.raises(ValueError, match=rf"^{parameter} must be at least 1, not {wrong}$"):
            COUNTS[name](wrong)
    for wrong in NO_WHOLE_NUMBER:
        if wrong is None and name in NULLABLE:
            continue
        with pytest.raises(TypeError, match=rf"^{parameter} must be a whole number"):
            COUNTS[name](wrong)
    COUNTS[name](1)


@pytest.mark.parametrize("rule", [rate, slow])
def test_a_rate_is_a_share(rule):
    for wrong in (0, -0.5, 1.001, 50, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^rate must be "):
            rule(rate=wrong)
    for wrong in NO_NUMBER:
        with pytest.raises(TypeError, match=r"^rate must be a number"):
            rule(rate=wrong)
    assert rule(rate=1).rate == 1


@pytest.mark.parametrize("rule", [rate, slow])
def test_a_minimum_fits_into_the_window(rule):
    with pytest.raises(
        ValueError, match=r"^minimum_calls must fit into CallWindow\(n=10\), not 11"
    ):
        rule(over=CallWindow(10), minimum_calls=11)
    assert rule(over=CallWindow(10), minimum_calls=10)
    assert rule(over=TimeWindow(10), minimum_calls=1000)


@pytest.mark.parametrize("rule", [rate, slow])
def test_a_rate_is_measured_over_a_window(rule):
    for wrong in (10, None, TimeWindow):
        with pytest.raises(TypeError, match=r"^over must be a CallWindow or a TimeWindow"):
            rule(over=wrong)


def test_a_backoff_grows_and_its_jitter_is_a_share():
    for wrong in (0.999, -2, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^multiplier must be at least 1.0 and finite"):
            Backoff(1, multiplier=wrong)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^jitter must be at least 0.0 and at most 1.0"):
            Backoff(1, jitter=wrong)
    with pytest.raises(ValueError, match=r"^maximum \(5\) must not be below initial \(10\)"):
        Backoff(10, maximum=5)
    for name in ("multiplier", "jitter"):
        with pytest.raises(TypeError, match=rf"^{name} must be a number"):
            Backoff(1, **{name: True})
    assert Backoff(10, 1, 10, 1) == Backoff(10, multiplier=1, maximum=10, jitter=1)


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_a_breaker_has_a_name(name):
    with pytest.raises(ValueError, match=r"^name must not be empty"):
        CircuitBreaker(name)


@pytest.mark.parametrize("name", [None, b"x", 5])
def test_a_name_is_a_text(name):
    with pytest.raises(TypeError, match=r"^name must be a text"):
        CircuitBreaker(name)


def test_settings_are_given_by_name():
    with pytest.raises(TypeError):
        CircuitBreaker("x", FailureCount(5, within=60))


def test_a_breaker_needs_a_rule():
    with pytest.raises(ValueError, match=r"^trip must hold a rule"):
        CircuitBreaker("x", trip=())


@pytest.mark.parametrize("trip", [5, None, FailureCount, [FailureCount(5, within=1)], ("x",)])
def test_only_rules_trip(trip):
    with pytest.raises(TypeError, match=r"^trip must be a rule"):
        CircuitBreaker("x", trip=trip)


@pytest.mark.parametrize(
    "wrong", [None, "ValueError", 5, int, (int,), (ValueError, None), [OSError]]
)
@pytest.mark.parametrize("name", ["failure_on", "ignore"])
def test_failures_are_named_by_exception_types(name, wrong):
    with pytest.raises(TypeError, match=rf"^{name} must "):
        CircuitBreaker("x", **{name: wrong})


def test_ignore_takes_no_predicate():
    with pytest.raises(TypeError, match=r"^ignore must hold exception types"):
        CircuitBreaker("x", ignore=lambda _: True)


@pytest.mark.parametrize("name", ["failure_result", "clock", "random"])
def test_functions_are_callable(name):
    with pytest.raises(TypeError, match=rf"^{name} must be callable, not 5"):
        CircuitBreaker("x", **{name: 5})


def test_a_registry_needs_a_factory():
    with pytest.raises(TypeError, match=r"^factory must be callable"):
        BreakerRegistry(None)


def test_a_breaker_shows_its_name_and_state():
    breaker = CircuitBreaker("upstream")
    assert breaker.name == "upstream"
    assert repr(breaker) == "<CircuitBreaker 'upstream': closed>"


def test_states_read_well_in_logs_and_labels():
    assert [str(state) for state in State] == ["closed", "open", "half_open", "isolated"]
    assert State("half_open") is State.HALF_OPEN


def test_a_backoff_may_begin_above_the_usual_maximum():
    assert Backoff(600).maximum == 600
    assert Backoff(300).maximum == Backoff(10).maximum == 300


def test_the_share_of_successes_is_a_share():
    for wrong in (0, -0.5, 1.001, math.nan):
        with pytest.raises(ValueError, match=r"^success_share must be "):
            CircuitBreaker("x", success_share=wrong)
    with pytest.raises(TypeError, match=r"^success_share must be a number"):
        CircuitBreaker("x", success_share="half")

import asyncio
import logging

import pytest

from halfopen import (
    CallFailed,
    CallIgnored,
    CallSucceeded,
    CircuitBreakerError,
    CircuitOpen,
    ConsecutiveFailures,
    State,
)


@pytest.fixture
def verdict(make):
    """What a call that raises, or returns, counts as under these settings."""

    def verdict(outcome, **settings):
        breaker = make(trip=ConsecutiveFailures(1000), **settings)
        told = []
        for event in (CallIgnored, CallFailed, CallSucceeded):
            breaker.on(event, told.append)

        def call():
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        if isinstance(outcome, BaseException):
            with pytest.raises(type(outcome)) as raised:
                breaker.call(call)
            assert raised.value is outcome
        else:
            assert breaker.call(call) is outcome
        (event,) = told
        return type(event)

    return verdict


def test_every_exception_is_a_failure_by_default(verdict):
    assert verdict(ValueError()) is CallFailed


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit(), SystemExit(), BaseException()],
)
@pytest.mark.parametrize("failure_on", [Exception, BaseException, lambda _: True])
def test_a_base_exception_is_neutral(verdict, error, failure_on):
    assert verdict(error, failure_on=failure_on) is CallIgnored


@pytest.mark.parametrize("failure_on", [OSError, (ValueError, OSError)])
def test_only_the_named_types_are_failures(verdict, failure_on):
    assert verdict(ConnectionError(), failure_on=failure_on) is CallFailed
    assert verdict(KeyError(), failure_on=failure_on) is CallSucceeded


def test_a_predicate_tells_failures_from_refusals(verdict):
    def is_server_error(exc):
        return exc.args[0] >= 500

    assert verdict(ValueError(503), failure_on=is_server_error) is CallFailed
    assert verdict(ValueError(404), failure_on=is_server_error) is CallSucceeded


@pytest.mark.parametrize("ignore", [KeyError, (KeyError, OSError)])
def test_ignored_types_are_neutral(verdict, ignore):
    assert verdict(KeyError(), ignore=ignore) is CallIgnored
    assert verdict(ValueError(), ignore=ignore) is CallFailed


def test_ignore_goes_before_failure_on(verdict):
    assert verdict(KeyError(), ignore=LookupError, failure_on=KeyError) is CallIgnored


def test_a_result_may_be_a_failure(verdict):
    assert verdict("503", failure_result=lambda result: result == "503") is CallFailed
    assert verdict("200", failure_result=lambda result: result == "503") is CallSucceeded


def test_a_bad_result_is_returned_and_counts(make):
    breaker = make(trip=ConsecutiveFailures(2), failure_result=lambda status: status >= 500)

    assert breaker.call(lambda: 503) == 503
    assert breaker.call(lambda: 500) == 500

    assert breaker.state is State.OPEN
    assert breaker.snapshot().last_failure is None


def test_a_bad_result_of_a_coroutine_counts(make):
    breaker = make(trip=ConsecutiveFailures(3), failure_result=lambda status: status >= 500)

    async def fetch():
        return 503

    async def main():
        return [await breaker.acall(fetch), await breaker(fetch)(), await breaker.call(fetch)]

    assert asyncio.run(main()) == [503] * 3
    assert breaker.state is State.OPEN


def test_a_predicate_that_raises_is_logged_and_changes_nothing(verdict, caplog):
    def broken(_):
        raise ZeroDivisionError

    assert verdict(ValueError("own"), failure_on=broken) is CallIgnored
    assert verdict("own", failure_result=broken) is CallIgnored

    assert [(r.name, r.levelno) for r in caplog.records] == [("halfopen", logging.ERROR)] * 2
    assert caplog.records[0].message.startswith("failure_on raised, ")
    assert caplog.records[1].message.startswith("failure_result raised, ")
    assert all(record.exc_info[0] is ZeroDivisionError for record in caplog.records)


def test_a_call_whose_predicate_raises_is_told_with_its_error(make):
    def broken(_):
        raise ZeroDivisionError

    breaker = make(failure_on=broken)
    told = []
    breaker.on(CallIgnored, told.append)

    with pytest.raises(ValueError, match="own") as raised:
        breaker.call(int, "own")

    assert told == [CallIgnored(breaker, raised.value)]


def test_a_predicate_may_use_the_breaker(make, fail):
    def reentrant(_):
        fail(breaker)
        return True

    breaker = make(trip=ConsecutiveFailures(3), failure_result=reentrant)

    assert breaker.call(lambda: "result") == "result"

    assert breaker.snapshot().rules[0].value == 2


def test_a_predicate_that_opens_the_circuit_makes_its_own_call_late(make):
    def opens(_):
        breaker.trip()
        return True

    breaker = make(failure_on=opens)

    with pytest.raises(ValueError, match="own"):
        breaker.call(int, "own")

    assert breaker.snapshot().failed == 0
    assert breaker.state is State.OPEN


def test_who_settles_by_hand_decides_by_hand(make):
    breaker = make(trip=ConsecutiveFailures(2), ignore=KeyError)

    assert breaker.acquire().failure(KeyError())
    assert breaker.acquire().failure()

    assert breaker.state is State.OPEN


GROUPS = {
    "failures": (ExceptionGroup("g", [OSError(), OSError()]), CallFailed),
    "one failure": (ExceptionGroup("g", [KeyError(), OSError(), ValueError()]), CallFailed),
    "nested failure": (
        ExceptionGroup("g", [ExceptionGroup("h", [ExceptionGroup("i", [OSError()])])]),
        CallFailed,
    ),
    "ignored": (ExceptionGroup("g", [KeyError(), ExceptionGroup("h", [KeyError()])]), CallIgnored),
    "refusals": (ExceptionGroup("g", [ValueError()]), CallSucceeded),
    "refused and ignored": (ExceptionGroup("g", [ValueError(), KeyError()]), CallSucceeded),
    "cancelled": (BaseExceptionGroup("g", [asyncio.CancelledError()]), CallIgnored),
    "cancelled and failed": (
        BaseExceptionGroup("g", [asyncio.CancelledError(), OSError()]),
        CallFailed,
    ),
    "refused by a breaker": (ExceptionGroup("g", [CircuitOpen("x")]), CallIgnored),
}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_counts_as_its_leaves_do(verdict, group):
    error, counts_as = GROUPS[group]

    assert verdict(error, failure_on=OSError, ignore=KeyError) is counts_as


@pytest.mark.parametrize("group", GROUPS)
def test_a_predicate_is_asked_about_leaves(verdict, group):
    error, counts_as = GROUPS[group]

    def is_os_error(exc):
        assert not isinstance(exc, ExceptionGroup)
        return isinstance(exc, OSError)

    assert verdict(error, failure_on=is_os_error, ignore=KeyError) is counts_as


def test_a_group_type_that_is_named_is_looked_at_as_a_whole(verdict):
    group = ExceptionGroup("g", [ValueError()])

    assert verdict(group, failure_on=ExceptionGroup) is CallFailed
    assert verdict(group, failure_on=(OSError, BaseExceptionGroup)) is CallFailed
    assert verdict(group, ignore=ExceptionGroup) is CallIgnored


def test_a_named_group_type_is_looked_at_as_a_whole_within_another_group(verdict):
    class ManyErrors(ExceptionGroup):
        pass

    of_a_task_group = ExceptionGroup("tasks", [ManyErrors("many", [ValueError()])])

    assert verdict(of_a_task_group, failure_on=ManyErrors) is CallFailed
    assert verdict(of_a_task_group, ignore=ManyErrors) is CallIgnored
    assert verdict(of_a_task_group, failure_on=ManyErrors, ignore=ManyErrors) is CallIgnored
    assert verdict(of_a_task_group, failure_on=OSError) is CallSucceeded


def test_a_very_deep_group_is_judged(make):
    error = OSError()
    for _ in range(50_000):
        error = ExceptionGroup("g", [error])
    breaker = make(trip=ConsecutiveFailures(1))

    with pytest.raises(ExceptionGroup), breaker.guard():
        raise error

    assert breaker.state is State.OPEN
    while isinstance(error, ExceptionGroup):  # or its deallocation overflows
        error = error.exceptions[0]


def test_a_group_of_failures_as_the_probe_opens_the_circuit_again(make, clock):
    breaker = make(failure_on=OSError, ignore=KeyError)
    breaker.trip()
    clock.advance(10)
    with pytest.raises(ExceptionGroup):
        breaker.call(raises, ExceptionGroup("g", [KeyError()]))
    assert breaker.state is State.HALF_OPEN

    with pytest.raises(ExceptionGroup):
        breaker.call(raises, ExceptionGroup("g", [OSError()]))

    assert breaker.state is State.OPEN


def raises(error):
    raise error


@pytest.mark.parametrize(
    "kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit]
)
def test_types_that_cannot_count_are_refused_with_what_to_do(make, kind):
    for failure_on in (kind, (OSError, kind)):
        with pytest.raises(TypeError, match=f"^failure_on must not hold {kind.__name__}") as error:
            make(failure_on=failure_on)
        assert "asyncio.timeout()" in str(error.value)


def test_a_time_limit_inside_the_guard_counts(make):
    breaker = make(trip=ConsecutiveFailures(1))

    @breaker
    async def limited():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(limited())

    assert breaker.state is State.OPEN


@pytest.mark.parametrize(
    ("failure_on", "counts_as"),
    [
        (Exception, CallIgnored),
        (lambda _: True, CallIgnored),
        (CircuitOpen, CallFailed),
        ((OSError, CircuitBreakerError), CallFailed),
    ],
)
def test_a_refusal_counts_only_where_its_type_is_named(verdict, failure_on, counts_as):
    assert verdict(CircuitOpen("inner"), failure_on=failure_on) is counts_as

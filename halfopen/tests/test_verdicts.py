import asyncio
import logging

import pytest

from halfopen import CallFailed, CallIgnored, CallSucceeded, ConsecutiveFailures, State


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
def test_what_is_no_exception_is_neutral(verdict, error, failure_on):
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

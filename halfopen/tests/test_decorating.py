"""Over what is no plain function: done right, or refused with a message that says what is."""

import asyncio
import functools
import inspect

import pytest

from halfopen import CallFailed, CallIgnored, CallSucceeded, ConsecutiveFailures, State


@pytest.fixture
def breaker(make):
    return make(trip=ConsecutiveFailures(1))


def test_class_methods_and_static_methods_may_be_decorated(breaker):
    class Client:
        @breaker
        @classmethod
        def make(cls, text):
            return cls, int(text)

        @classmethod
        @breaker
        def make_beneath(cls, text):
            return cls, int(text)

        @breaker
        @staticmethod
        def parse(text):
            return int(text)

        @breaker
        @classmethod
        async def amake(cls):
            return cls

    class Special(Client):
        pass

    assert Special.make("42") == (Special, 42)
    assert Special().make_beneath("42") == (Special, 42)
    assert Client.parse("42") == Client().parse("42") == 42
    assert asyncio.run(Special.amake()) is Special
    assert inspect.iscoroutinefunction(Client.amake)
    with pytest.raises(ValueError, match="nonsense"):
        Client.make("nonsense")
    assert breaker.state is State.OPEN


class AClass:
    def method(self):
        return 42


@pytest.mark.parametrize(
    "wrong",
    [
        AClass,
        5,
        None,
        property(AClass.method),
        functools.partialmethod(AClass.method),
        functools.singledispatchmethod(AClass.method),
        functools.cached_property(AClass.method),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_a_non_function_is_refused(breaker, wrong):
    told = []
    for event in (CallIgnored, CallFailed, CallSucceeded):
        breaker.on(event, told.append)

    with pytest.raises(TypeError, match=r"decorate its methods|the function beneath"):
        breaker(wrong)

    assert told == []
    assert breaker.state is State.CLOSED


def test_classes_may_be_called(breaker):
    assert breaker.call(AClass).method() == 42
    assert breaker(int)("42") == 42


def test_partial_functions_and_callable_objects_may_be_decorated(breaker):
    class Callable:
        def __call__(self, text):
            return int(text)

    async def parse(text):
        return int(text)

    assert breaker(functools.partial(int, "42"))() == 42
    assert breaker(Callable())("42") == 42
    assert asyncio.run(breaker(functools.partial(parse, "42"))()) == 42
    assert breaker(AClass().method)() == 42

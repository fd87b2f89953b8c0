import contextlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from halfopen import CircuitBreaker

# The circuits that several programs share are an extra, and so are their tests.
collect_ignore = [] if find_spec("redis") else ["cluster"]


class Clock:
    """A clock that moves when told to, and counts how often it was read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0
        self.when_read: Callable[[], object] | None = None

    def __call__(self) -> float:
        self.reads += 1
        if self.when_read is not None:
            self.when_read()
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Boom(Exception):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., CircuitBreaker]:
    def make(**settings: Any) -> CircuitBreaker:
        return CircuitBreaker("upstream", clock=clock, **settings)

    return make


@pytest.fixture
def boom() -> type[Boom]:
    return Boom


@pytest.fixture
def fail() -> Callable[..., None]:
    """Makes calls through a breaker that raise Boom."""

    def fail(breaker: CircuitBreaker, times: int = 1) -> None:
        def call() -> None:
            raise Boom("down")

        for _ in range(times):
            with contextlib.suppress(Boom):
                breaker.call(call)

    return fail


@pytest.fixture
def succeed() -> Callable[..., None]:
    def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
        for _ in range(times):
            assert breaker.call(str, 42) == "42"

    return succeed

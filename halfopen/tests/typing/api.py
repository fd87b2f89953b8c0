"""Checked by mypy --strict, never run: what users write keeps its types."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import assert_type

from halfopen import (
    BreakerRegistry,
    CallFailed,
    CircuitBreaker,
    CircuitOpen,
    FailureCount,
    Permit,
    Reading,
    Snapshot,
    State,
    StateChanged,
)

breaker = CircuitBreaker(
    "typed",
    trip=FailureCount(3, within=30),
    failure_on=lambda exc: "down" in str(exc),
    ignore=(KeyError, OSError),
    failure_result=lambda result: result is None,
)


@breaker
def function(a: int, *, b: str = "") -> list[str]:
    return [b] * a


@breaker
async def coroutine(a: int) -> str:
    return str(a)


@breaker
def generator(a: int) -> Iterator[int]:
    yield a


@breaker
async def async_generator(a: int) -> AsyncIterator[int]:
    yield a


class Client:
    @breaker
    def get(self, path: str) -> bytes:
        return path.encode()


assert_type(function(1, b="x"), list[str])
assert_type(generator(1), Iterator[int])
assert_type(async_generator(1), AsyncIterator[int])
assert_type(Client().get("/"), bytes)
function("1")  # type: ignore[arg-type]
function(1, c=2)  # type: ignore[call-arg]
Client().get(1)  # type: ignore[arg-type]

assert_type(breaker.call(function, 1, b="x"), list[str])
assert_type(breaker.call(int, "1"), int)
breaker.call(function, "1")  # type: ignore[arg-type]


async def use() -> None:
    assert_type(await coroutine(1), str)
    assert_type(await breaker.acall(coroutine, 1), str)
    assert_type(await breaker.call(coroutine, 1), str)
    await breaker.acall(coroutine, "1")  # type: ignore[arg-type]
    async with breaker.guard() as permit:
        assert_type(permit, Permit)


with breaker.guard() as permit:
    assert_type(permit, Permit)
    assert_type(permit.success(), bool)
    assert_type(permit.failure(ValueError()), bool)
    assert_type(permit.ignore(), bool)

assert_type(breaker.acquire(), Permit)
assert_type(breaker.state, State)
assert_type(breaker.snapshot(), Snapshot)
assert_type(breaker.snapshot().rules, tuple[Reading, ...])
assert_type(
    breaker.on(StateChanged, lambda change: (change.old, change.reason)), Callable[[], None]
)
breaker.once(CallFailed, lambda event: event.error)
breaker.on(StateChanged, lambda change: change.error)  # type: ignore[attr-defined]

handle = breaker.isolate()
handle()
handle.release()
with breaker.isolate():
    pass

hosts: BreakerRegistry[str] = BreakerRegistry(CircuitBreaker)
assert_type(hosts["a"], CircuitBreaker)
assert_type(hosts.items(), list[tuple[str, CircuitBreaker]])


def refused(error: CircuitOpen) -> None:
    assert_type(error.name, str)
    assert_type(error.state, State)
    assert_type(error.retry_after, float)
    assert_type(error.last_failure, BaseException | None)

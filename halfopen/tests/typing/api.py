"""Checked by mypy and pyright in strict mode, never run: what users write keeps its types."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import assert_type

from halfopen import (
    BreakerRegistry,
    CallFailed,
    CircuitBreaker,
    CircuitOpen,
    Counter,
    Event,
    FailureCount,
    Permit,
    Reading,
    Rule,
    Snapshot,
    State,
    StateChanged,
)
from halfopen.logs import log_changes

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

    @breaker
    async def aget(self, path: str) -> bytes:
        return path.encode()

    @breaker
    def lines(self) -> Iterator[str]:
        yield ""

    @breaker
    @classmethod
    def above(cls, port: int) -> "Client":
        return cls() if port else Client()

    @classmethod
    @breaker
    def beneath(cls, port: int) -> "Client":
        return cls() if port else Client()

    @breaker
    @staticmethod
    def parse(text: str) -> int:
        return int(text)

    @property
    @breaker
    def host(self) -> str:
        return ""


assert_type(function(1, b="x"), list[str])
assert_type(generator(1), Iterator[int])
assert_type(async_generator(1), AsyncIterator[int])
assert_type(Client().get("/"), bytes)
function("1")  # type: ignore[arg-type]
function(1, c=2)  # type: ignore[call-arg]
Client().get(1)  # type: ignore[arg-type]
assert_type(Client().lines(), Iterator[str])
assert_type(Client.above(80), Client)
assert_type(Client().above(80), Client)
Client.above("80")  # type: ignore[arg-type]
assert_type(Client.beneath(80), Client)
assert_type(Client.parse("1"), int)
assert_type(Client().parse("1"), int)
assert_type(Client().host, str)

assert_type(breaker.call(function, 1, b="x"), list[str])
assert_type(breaker.call(int, "1"), int)
breaker.call(function, "1")  # type: ignore[arg-type]


async def use() -> None:
    assert_type(await coroutine(1), str)
    assert_type(await Client().aget("/"), bytes)
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
breaker.on(Event, lambda event: event.breaker.reset())
breaker.once(CallFailed, lambda event: event.error)
breaker.on(StateChanged, lambda change: change.error)  # type: ignore[attr-defined]

handle = breaker.isolate()
handle()
handle.release()
with breaker.isolate():
    pass

hosts: BreakerRegistry[str] = BreakerRegistry(CircuitBreaker)
assert_type(hosts["a"], CircuitBreaker)
assert_type(hosts.get("a"), CircuitBreaker | None)
assert_type(hosts.get("a", 5), CircuitBreaker | int | None)
assert_type(hosts.pop("a"), CircuitBreaker | None)
assert_type(hosts.values(), list[CircuitBreaker])
hosts.on(StateChanged, lambda change: change.breaker.name)
log_changes(hosts)
log_changes(breaker)
assert_type(hosts.items(), list[tuple[str, CircuitBreaker]])


def refused(error: CircuitOpen) -> None:
    assert_type(error.name, str)
    assert_type(error.state, State)
    assert_type(error.retry_after, float)
    assert_type(error.last_failure, BaseException | None)


class Never:
    """A rule of one's own."""

    def start(self) -> Counter:
        return NeverTrips()


class NeverTrips:
    hears_successes = False

    def after(self, now: float, duration: float, *, failed: bool) -> Counter:
        return self

    def trips(self, now: float, hung: int) -> bool:
        return False

    def reading(self, now: float, hung: int) -> Reading:
        return Reading(Never(), 0, 1, 0, 0)


rule: Rule = Never()
CircuitBreaker("x", trip=(Never(), FailureCount(3, within=30)))
CircuitBreaker("x", cooldown=lambda error: 60.0 if error is None else 10.0, shadow=True)
CircuitBreaker("x", state=breaker.export())
CircuitBreaker("x", trip=5)  # type: ignore[arg-type]

"""Permits, and how functions of each kind are called under guard.

The short ways are repeated in `function` and `coroutine_function`, because a call between would
cost as much as the breaker itself. While `_calm` holds, a call needs no permit on its way in, and
on its way out only another look. Until `_refused_until` it is refused without asking further.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from halfopen.cluster import Grant, Verdict
from halfopen.state import OPEN, CircuitOpen

if TYPE_CHECKING:
    from halfopen.breaker import CircuitBreaker

Function: TypeAlias = Callable[..., Any]


class Permit:
    """The right to make one call, and the duty to say how it went.

    Each verdict returns whether it counted: not if there was one before, nor if the circuit has
    changed its state since (the result is late), nor if the probe had lost its slot. `failure_on`
    and `ignore` are not asked: who settles by hand decides by hand.
    """

    __slots__ = ("__weakref__", "_breaker", "grant", "number", "settled", "started")

    def __init__(self, breaker: CircuitBreaker, number: int, started: float = 0.0) -> None:
        self._breaker = breaker
        self.number = number  # of the closed period, or of the probe
        self.started = started
        self.settled = False
        self.grant: Grant | None = None  # of a cluster

    def success(self) -> bool:
        return self._breaker._settle(self, failed=False)

    def failure(self, exc: BaseException | None = None) -> bool:
        return self._breaker._settle(self, exc, failed=True)

    def ignore(self) -> bool:
        return self._breaker._ignore(self)


class Probe(Permit):
    """A permit in the half-open state, which holds a slot. Abandoned, it gives the slot back."""

    __slots__ = ()

    def __del__(self) -> None:
        if not self.settled:
            self._breaker._given_back.append(self.number)
            if self.grant is not None:
                self._breaker._tell_settled(self, Verdict.NEUTRAL)


class Guard:
    """Acquires a permit on entry and settles it on exit, unless the block has done so.

    It serves one `with` or `async with`, whose ends may lie in different threads and contexts.
    """

    __slots__ = ("_breaker", "_permit")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        self._serve_once()
        self._permit = self._breaker.acquire()
        return self._permit

    def _serve_once(self) -> None:
        if self._permit is not None:
            raise RuntimeError("a guard serves once: call guard() again")

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        if self._permit is None or self._permit.settled:
            return
        if exc is None:
            self._permit.success()
        else:
            self._breaker._raised(self._permit, exc)

    async def __aenter__(self) -> Permit:
        self._serve_once()
        self._permit = await self._breaker._acquire()
        return self._permit

    async def __aexit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        self.__exit__(kind, exc, traceback)


class Isolation:
    """Keeps a breaker from letting any call in, until it is released or its `with` block ends.

    Calling it releases it, too. To release it again does nothing.
    """

    __slots__ = ("_breaker",)

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def release(self) -> None:
        self._breaker._release(self)

    __call__ = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


Acquire: TypeAlias = Callable[[], Permit]
RUNS_LATER = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def function(breaker: CircuitBreaker, fn: Function) -> Function:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        number = breaker._calm
        permit = None
        if not number:
            until = breaker._refused_until
            if until and (wait := until - breaker._clock()) > 0:
                breaker._rejected += 1
                raise CircuitOpen(breaker.name, OPEN, wait, breaker._last_failure)
            permit = breaker.acquire()
        try:
            result = fn(*args, **kwargs)
        except BaseException as exc:
            breaker._raised(permit or Permit(breaker, number), exc)
            raise
        if permit or breaker._calm != number or type(result) in RUNS_LATER:
            return _returned(breaker, permit or Permit(breaker, number), result)
        return result

    return guarded


def coroutine_function(breaker: CircuitBreaker, fn: Function) -> Function:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        number = breaker._calm
        permit = None
        if not number:
            until = breaker._refused_until
            if until and (wait := until - breaker._clock()) > 0:
                breaker._rejected += 1
                raise CircuitOpen(breaker.name, OPEN, wait, breaker._last_failure)
            permit = await breaker._acquire()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as exc:
            breaker._raised(permit or Permit(breaker, number), exc)
            raise
        if permit or breaker._calm != number:
            breaker._returned(permit or Permit(breaker, number), result)
        return result

    return guarded


def generator_function(breaker: CircuitBreaker, fn: Function, acquire: Acquire) -> Function:
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        permit = acquire()
        try:
            result = yield from fn(*args, **kwargs)
        except BaseException as exc:
            breaker._raised(permit, exc)
            raise
        permit.success()
        return result

    return guarded


def async_generator_function(
    breaker: CircuitBreaker, fn: Function, admitted: Permit | None = None
) -> Function:
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        permit = admitted or await breaker._acquire()
        try:
            source = fn(*args, **kwargs)
            step = source.asend(None)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    await source.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - thrown in by the consumer, passed on
                    step = source.athrow(exc)
                else:
                    step = source.asend(sent)
        except BaseException as exc:
            breaker._raised(permit, exc)
            raise
        permit.success()

    return guarded


def _returned(breaker: CircuitBreaker, permit: Permit, result: Any) -> Any:
    """What a call gives its caller. Where the work is still to come, the permit goes with it."""
    if isinstance(result, CoroutineType):
        return _awaited(breaker, permit, result)
    if isinstance(result, GeneratorType):
        return generator_function(breaker, lambda: result, lambda: permit)()
    if isinstance(result, AsyncGeneratorType):
        return async_generator_function(breaker, lambda: result, permit)()
    breaker._returned(permit, result)
    return result


async def _awaited(breaker: CircuitBreaker, permit: Permit, running: Awaitable[Any]) -> Any:
    try:
        result = await running
    except BaseException as exc:
        breaker._raised(permit, exc)
        raise
    breaker._returned(permit, result)
    return result

"""How each operation treats the upstream.

Outermost first: single flight (reads), retries with a budget (reads), breaker, concurrency limit.
The time limit of an attempt belongs to the attempt itself.
"""

import random
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from math import inf
from typing import Generic, Protocol, TypeVar

from event_service.errors import Overloaded, UpstreamError, UpstreamFault, UpstreamUnavailable
from event_service.libs import call_context
from event_service.libs.bulkhead import Bulkhead, BulkheadFull
from event_service.libs.call_context import CallContext
from event_service.libs.retry import GaveUp, RetryBudget, backoff, with_retries
from event_service.libs.single_flight import SingleFlight
from halfopen import CircuitBreaker

T = TypeVar("T")

BACKOFF_BASE = 0.05
BACKOFF_CAP = 1.0


class Observer(Protocol):
    """Told what happens between us and the upstream. Times are in seconds."""

    def attempt_started(self, operation: str, number: int) -> None: ...

    def called(self, operation: str, outcome: str, duration: float) -> None: ...

    def retried(self, operation: str, attempt: int, error: Exception, wait: float) -> None: ...

    def gave_up(self, operation: str, error: Exception, attempt: int, reason: GaveUp) -> None: ...

    def shared(self, operation: str, leader: CallContext | None) -> None: ...


class Guard:
    """Breaker and concurrency limit around each attempt of one operation."""

    def __init__(
        self,
        operation: str,
        *,
        breaker: CircuitBreaker,
        bulkhead: Bulkhead,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self.operation = operation
        self._breaker = breaker
        self._bulkhead = bulkhead
        self._observer = observer
        self._clock = clock

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Raise CircuitOpen or Overloaded when the attempt may not start, else what it raises."""
        return await self._breaker.acall(self._limited, attempt)

    async def _limited(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            await self._bulkhead.acquire()
        except BulkheadFull:
            raise Overloaded("Too many calls wait for the upstream.") from None
        outcome = "cancelled"
        started = self._clock()
        try:
            result = await attempt()
            outcome = "ok"
        except UpstreamError as error:
            outcome = error.outcome
            raise
        else:
            return result
        finally:
            self._bulkhead.release()
            self._observer.called(self.operation, outcome, self._clock() - started)


class Read(Generic[T]):
    """One read operation: the same key asked for at the same time is fetched once."""

    def __init__(
        self,
        guard: Guard,
        fetch: Callable[[str], Awaitable[T]],
        *,
        single_flight: bool,
        attempts: int,
        budget: RetryBudget,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._guard = guard
        self._fetch = fetch
        self._attempts = attempts
        self._budget = budget
        self._observer = observer
        self._clock = clock
        operation = guard.operation
        self._on_retry = partial(observer.retried, operation)
        self._on_give_up = partial(observer.gave_up, operation)
        self._flights: SingleFlight[str, T] | None = (
            SingleFlight(self._on_shared) if single_flight else None
        )

    async def __call__(self, key: str = "") -> T:
        """Raise CircuitOpen, Overloaded or the UpstreamError of the last attempt."""
        if self._flights is None:
            return await self._with_retries(key)
        return await self._flights.run(key, partial(self._with_retries, key))

    async def _with_retries(self, key: str) -> T:
        call = call_context.current.get()
        fetch = partial(self._fetch, key)

        def attempt(number: int) -> Awaitable[T]:
            self._observer.attempt_started(self._guard.operation, number)
            return self._guard(fetch)

        return await with_retries(
            attempt,
            attempts=self._attempts,
            budget=self._budget,
            retry_after=_retry_after,
            deadline=inf if call is None else call.deadline,
            backoff=_backoff,
            on_retry=self._on_retry,
            on_give_up=self._on_give_up,
            clock=self._clock,
        )

    def _on_shared(self, leading: Context) -> None:
        self._observer.shared(self._guard.operation, leading.get(call_context.current))


def _retry_after(error: Exception) -> float | None:
    match error:
        case UpstreamUnavailable():
            return error.retry_after or 0.0
        case UpstreamFault(passing=True):
            return 0.0
        case _:
            return None


def _backoff(attempt: int) -> float:
    return backoff(attempt, base=BACKOFF_BASE, cap=BACKOFF_CAP, random=random.random)

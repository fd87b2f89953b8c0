"""How each operation treats the upstream.

Outermost first: single flight (reads), retries with a budget (reads), breaker, concurrency limit.
The time limit of an attempt belongs to the attempt itself.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from event_service import context
from event_service.context import CallContext
from event_service.errors import Overloaded, UpstreamError, UpstreamFault, UpstreamUnavailable
from event_service.libs.bulkhead import Bulkhead, BulkheadFull
from event_service.libs.fan_out import Call
from event_service.libs.retry import GaveUp, RetryBudget, backoff, with_retries
from event_service.libs.single_flight import SingleFlight
from halfopen import CircuitBreaker, State

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

    def cache_hit(self, operation: str) -> None: ...


class Guard:
    """Breaker and concurrency limit around each attempt of one operation.

    An attempt that waited for its turn is refused after all if the circuit has opened meanwhile:
    a queue of calls does not outlive the upstream that it waits for.
    """

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
        self._guarded = breaker(self._limited)
        self._bulkhead = bulkhead
        self._observer = observer
        self._clock = clock

    def __call__(self, attempt: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """Raise CircuitOpen or Overloaded when the attempt may not start, else what it raises."""
        return self._guarded(attempt)

    async def _limited(self, attempt: Callable[[], Awaitable[T]]) -> T:
        opened = False if self._bulkhead.try_acquire() else await self._wait_for_a_slot()
        try:
            if opened:
                # What was let in while the circuit was closed counts no longer, so this is no
                # second verdict on one call.
                return await self._breaker.acall(self._timed, attempt)
            return await self._timed(attempt)
        finally:
            self._bulkhead.release()

    async def _wait_for_a_slot(self) -> bool:
        """Whether the circuit has left its closed state meanwhile."""
        was_closed = self._breaker.state is State.CLOSED
        try:
            # Requests take turns, so that one with thousands of calls does not hold up the rest.
            await self._bulkhead.acquire(context.current.get())
        except BulkheadFull:
            raise Overloaded("Too many calls wait for the upstream.") from None
        return was_closed and self._breaker.state is not State.CLOSED

    async def _timed(self, attempt: Callable[[], Awaitable[T]]) -> T:
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
    ) -> None:
        self._guard = guard
        self._fetch = fetch
        self._attempts = attempts
        self._budget = budget
        self._observer = observer
        operation = guard.operation
        self._on_retry = partial(observer.retried, operation)
        self._on_give_up = partial(observer.gave_up, operation)
        self._flights: SingleFlight[str, T] | None = (
            SingleFlight(self._on_shared) if single_flight else None
        )

    def __call__(self, key: str = "", *, attempts: int | None = None) -> Call[T]:
        """Raise CircuitOpen, Overloaded or the UpstreamError of the last attempt.

        `attempts`: how many there may be if not as many as usual. Who joins a call under way
        gets what that brings, and its retries keep to the deadline of the first who asked.
        """
        if self._flights is None:
            return self._with_retries(key, attempts)
        return self._flights.run(key, partial(self._with_retries, key, attempts))

    def forget(self, key: str = "") -> None:
        """Whoever asks from now on shares no call that began before."""
        if self._flights is not None:
            self._flights.forget(key)

    async def _with_retries(self, key: str, attempts: int | None) -> T:
        call = context.current.get()
        fetch = partial(self._fetch, key)

        def attempt(number: int) -> Awaitable[T]:
            self._observer.attempt_started(self._guard.operation, number)
            return self._guard(fetch)

        return await with_retries(
            attempt,
            attempts=attempts or self._attempts,
            budget=self._budget,
            retry_after=_retry_after,
            deadline=inf if call is None else call.deadline,
            backoff=_backoff,
            on_retry=self._on_retry,
            on_give_up=self._on_give_up,
            # The clock of deadlines, whatever clock the breakers go by.
            clock=asyncio.get_running_loop().time,
        )

    def _on_shared(self, leading: Context) -> None:
        self._observer.shared(self._guard.operation, leading.get(context.current))


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

"""The policies around each operation of a source.

From the outside in: single flight (reads), retries with a budget (reads), breaker, concurrency
limit, time limit of an attempt.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

from event_service import context
from event_service.context import Attempt
from event_service.errors import (
    DeadlineExceeded,
    EventServiceError,
    InvalidRequest,
    Overloaded,
    UpstreamBroken,
    UpstreamFault,
    UpstreamMisshapen,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from event_service.libs.bulkhead import Bulkhead, BulkheadFull
from event_service.libs.retry import Retries, RetryBudget, backoff
from event_service.libs.single_flight import SingleFlight
from event_service.libs.stale_cache import StaleCache
from event_service.libs.time_limit import TimeLimit, TimeLimits
from event_service.signals import (
    AttemptEnded,
    AttemptRefused,
    BrokenOff,
    Emit,
    GaveUp,
    Retried,
    Shared,
)
from halfopen import CircuitBreaker, CircuitOpen, Permit, State

T = TypeVar("T")

BACKOFF_BASE = 0.05
BACKOFF_CAP = 1.0
# An attempt that is cut short counts as a failure if no byte came for this fraction of the
# attempt's timeout.
QUIET = 0.4
# Seconds. A longer Retry-After is cut to this.
LONGEST_OPEN = 600.0

# Keyed by operation and key: one cache for all operations, so that one size limit covers them.
ReplyCache = StaleCache[tuple[str, ...], Any]


@dataclass(frozen=True)
class Policies:
    """What guards the operations of one source. `breakers` by operation; times in seconds."""

    breakers: Mapping[str, CircuitBreaker]
    bulkhead: Bulkhead
    budget: RetryBudget
    emit: Emit
    attempt_timeout: float
    attempts: int
    single_flight: bool
    cache: ReplyCache | None
    clock: Callable[[], float]
    limits: TimeLimits = field(default_factory=TimeLimits)


class Guard:
    """Breaker, concurrency limit and time limit around each attempt of one operation."""

    def __init__(self, operation: str, policies: Policies) -> None:
        self.operation = operation
        self._breaker = policies.breakers[operation]
        self._bulkhead = policies.bulkhead
        self._budget = policies.budget
        self._emit = policies.emit
        self._timeout = policies.attempt_timeout
        self._clock = policies.clock
        self._not_before = -inf
        self._limits = policies.limits

    async def attempt(
        self, number: int, fetch: Callable[..., Awaitable[T]], *args: object, **kwargs: object
    ) -> T:
        """Run `fetch(*args, **kwargs)` as attempt `number` of a call.

        Raises CircuitOpen, Overloaded or DeadlineExceeded if it may not start, UpstreamTimeout if
        it takes too long, and what `fetch` raises.
        """
        call = context.current.get()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if call is not None and now >= call.latest:
            raise self._too_late("deadline: no time left to begin")
        breaker = self._breaker
        # A call is refused here while the circuit is open.
        permit = breaker.acquire() if breaker.state is State.CLOSED else await self._claim()
        if not self._bulkhead.try_acquire():
            permit = await self._wait_for_a_slot(permit)
            now = loop.time()
        limit = TimeLimit(self._limits, now + self._timeout, call)
        if call is not None:
            call.upstream_calls += 1
        if number == 1:
            self._budget.record_request()
        attempt = Attempt(number, now, limit)
        context.attempt.set(attempt)
        outcome, succeeded = "ok", False
        started = self._clock()
        try:
            with limit:
                result = await fetch(*args, **kwargs)
            succeeded = permit.success()
        except BaseException as error:
            if limit.expired and isinstance(error, TimeoutError):
                outcome = self._cut_short(permit, attempt, until=limit.until)
                raise self._timed_out(attempt) from None
            outcome, succeeded = self._judge(permit, error, attempt)
            raise
        finally:
            self._bulkhead.release()
            duration = self._clock() - started
            self._emit(AttemptEnded(self.operation, outcome, duration, succeeded))
        return result

    async def _claim(self) -> Permit:
        """Acquire a permit while the circuit is not closed.

        In a cluster this may wait, because all nodes share one canary.
        """
        try:
            return await self._breaker.guard().__aenter__()
        except CircuitOpen:
            self._emit(AttemptRefused(self.operation))
            raise

    async def _wait_for_a_slot(self, permit: Permit) -> Permit:
        """Wait for a free slot, and return a permit that is still valid.

        The permit is a new one if the circuit changed meanwhile, or if the probe's time is too
        short for one more attempt. So calls that queued before the circuit opened are refused.
        The breaker does not count the wait.
        """
        try:
            call = context.current.get()
            with self._limits(inf, call):
                # Requests take turns, so one with thousands of calls does not delay the others.
                await self._bulkhead.acquire(call)
        except BulkheadFull:
            permit.ignore()
            raise Overloaded("Too many calls wait for the upstream.") from None
        except TimeoutError:
            permit.ignore()
            raise self._too_late("deadline: no free slot in time") from None
        except BaseException:
            permit.ignore()
            raise
        if permit.may_start(self._timeout):
            return permit
        permit.ignore()
        try:
            return await self._claim()
        except BaseException:
            self._bulkhead.release()
            raise

    def _judge(self, permit: Permit, error: BaseException, attempt: Attempt) -> tuple[str, bool]:
        """Tell the breaker how the attempt ended.

        Returns the outcome for the metrics, and whether the breaker counted a success.
        """
        succeeded = False
        match error:
            case UpstreamUnavailable():
                permit.failure(error)
                self._leave_alone(error)
            case UpstreamFault():
                if isinstance(error, UpstreamBroken | UpstreamUnreachable):
                    self._emit(BrokenOff(self.operation, self._bulkhead.in_flight))
                permit.failure(error)
                self._stay_open(0.0)
            case Overloaded() | DeadlineExceeded() | CircuitOpen() | InvalidRequest():
                permit.ignore()  # nothing reached the upstream
            case UpstreamMisshapen():
                permit.ignore()  # one bad record must not open the circuit for everyone
            case EventServiceError():
                succeeded = permit.success()  # the upstream works; it refused this call only
            case Exception():
                permit.failure(error)
            case _:
                return self._cut_short(permit, attempt, until=inf), False
        return getattr(error, "outcome", "failed"), succeeded

    def _cut_short(self, permit: Permit, attempt: Attempt, *, until: float) -> str:
        """As `_judge`, for an attempt that ended by its time limit or because the client left.

        It is a failure if it had the full timeout, or if the upstream sent nothing for too long.
        Otherwise short deadlines and impatient clients would hide an upstream that is down.
        """
        now = _loop_time()
        if now < until and now - attempt.quiet_since < QUIET * self._timeout:
            permit.ignore()
            return "cancelled"
        permit.failure(self._timed_out(attempt))
        self._stay_open(0.0)
        return UpstreamTimeout.outcome

    def _leave_alone(self, error: UpstreamUnavailable) -> None:
        """Respect the upstream's Retry-After.

        A 429 is about us, so a single one opens the circuit if it asks for more than a cooldown.
        After a shorter one, as after a 503, reads wait before their next attempt, and the circuit
        opens by its usual rule.
        """
        asked = min(error.retry_after or 0.0, LONGEST_OPEN)
        breaker = self._breaker
        is_long = error.too_many and asked > breaker.snapshot().next_cooldown
        if is_long and breaker.state is State.CLOSED:
            breaker.trip(for_=asked, reason=f"the upstream wants no call for {asked:g} s")
        self._stay_open(asked)

    def _stay_open(self, asked: float) -> None:
        """Keep an open circuit open until the latest time that the upstream has asked for."""
        now = self._clock()
        self._not_before = max(self._not_before, now + asked)
        if self._not_before > now and self._breaker.state is State.OPEN:
            left = self._not_before - now
            if left > self._breaker.snapshot().retry_after:
                self._breaker.trip(for_=left)

    def _too_late(self, reason: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            "There was no answer within the time a request has.",
            operation=self.operation,
            reason=reason,
        )

    def _timed_out(self, attempt: Attempt) -> UpstreamTimeout:
        return UpstreamTimeout(
            self.operation,
            "The upstream did not answer in time.",
            reason=f"timeout: {attempt.pending} in time",
        )


class Read(Generic[T]):
    """One read operation. Concurrent reads of the same key share one fetch."""

    def __init__(
        self, operation: str, fetch: Callable[..., Awaitable[T]], policies: Policies
    ) -> None:
        self.operation = operation
        self._fetch = fetch
        self._emit = policies.emit
        self._guard = Guard(operation, policies)
        self._retries = Retries(
            policies.attempts,
            budget=policies.budget,
            retry_after=_retry_after,
            backoff=_backoff,
            until=context.latest,
            # Deadlines use the loop's clock, whichever clock the breakers use.
            clock=_loop_time,
            on_retry=self._on_retry,
            on_give_up=self._on_give_up,
        )
        self._flights: SingleFlight[tuple[str, ...], T] | None = None
        if policies.single_flight:
            self._flights = SingleFlight(self._on_shared)

    def __call__(self, *key: str, attempts: int | None = None) -> asyncio.Future[T]:
        """Raise CircuitOpen, Overloaded, DeadlineExceeded or the error of the last attempt.

        `attempts` overrides the configured number. A caller that joins a call in progress gets
        its result; the call may run until the latest deadline of its callers.
        """
        if self._flights is None:
            return asyncio.ensure_future(self.unshared(*key, attempts=attempts))
        return self._flights.run(key, self.unshared, *key, attempts=attempts)

    def unshared(self, *key: str, attempts: int | None = None) -> Coroutine[Any, Any, T]:
        """As `__call__`, but in the caller's own task; for callers that are shared as a whole."""
        return self._retries.run(self._guard.attempt, self._fetch, *key, attempts=attempts)

    def forget(self, *key: str) -> None:
        """Reads that start after this do not join a call that began before it."""
        if self._flights is not None:
            self._flights.forget(key)

    def _on_shared(self, leading: Context) -> None:
        tell_shared(self.operation, leading, self._emit)

    def _on_retry(self, attempt: int, error: Exception, wait: float) -> None:
        self._emit(Retried(self.operation, attempt, error, wait))

    def _on_give_up(self, error: Exception, attempt: int, reason: str) -> None:
        self._emit(GaveUp(self.operation, attempt, error, reason))


def tell_shared(operation: str, leading: Context, emit: Emit) -> None:
    """Join the shared call that runs in the context `leading`."""
    leader, call = leading.get(context.current), context.current.get()
    if leader is not None and call is not None:
        call.join(leader)
    emit(Shared(operation, leader))


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


def _loop_time() -> float:
    return asyncio.get_running_loop().time()

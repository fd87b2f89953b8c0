"""Builds the policies around a source: breakers, limits, retries and cache."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.libs.stale_cache import StaleCache
from event_service.settings import Settings
from event_service.signals import Emit
from event_service.sources.policy import Policies, ReplyCache
from halfopen import CircuitBreaker, FailureCount, FailureRate, TimeWindow

if TYPE_CHECKING:
    from event_service.cluster.membership import Membership

# Waiting callers allowed for each upstream call in progress: at 500 ms a call, the last of them is
# still served within the default deadline of 5 s.
QUEUE_FACTOR = 10
# Both limit the cache. The size is in bytes of JSON; the values need a few times as much memory.
CACHE_ENTRIES = 50_000
CACHE_SIZE = 32 * 1024 * 1024


def build_policies(
    settings: Settings,
    operations: Sequence[str],
    *,
    emit: Emit,
    cluster: "Membership | None",
    clock: Callable[[], float],
) -> Policies:
    share = settings.retry_budget
    nodes = (lambda: 1) if cluster is None else cluster.count
    return Policies(
        breakers=build_breakers(settings, operations, clock=clock),
        bulkhead=Bulkhead(
            settings.upstream_concurrency, max_waiting=QUEUE_FACTOR * settings.upstream_concurrency
        ),
        # With a ratio of 0 no retry is allowed, so there is no floor either.
        budget=RetryBudget(share, floor=10.0 if share else 0.0, nodes=nodes, clock=clock),
        emit=emit,
        attempt_timeout=settings.upstream_timeout,
        attempts=settings.retry_attempts,
        single_flight=settings.single_flight,
        cache=build_cache(settings, clock=clock),
        clock=clock,
    )


def build_breakers(
    settings: Settings, operations: Sequence[str], *, clock: Callable[[], float]
) -> dict[str, CircuitBreaker]:
    """A breaker for each operation: counting for writes, by failure rate for reads."""
    writes = FailureCount(settings.breaker_failures, within=settings.breaker_window)
    reads = FailureRate(0.5, over=TimeWindow(10.0), minimum_calls=20)
    return {
        operation: CircuitBreaker(
            operation,
            trip=writes if operation == "addEvent" else reads,
            cooldown=settings.breaker_cooldown,
            clock=clock,
        )
        for operation in operations
    }


def build_cache(settings: Settings, *, clock: Callable[[], float]) -> ReplyCache | None:
    """The cache of upstream replies, if the settings ask for one."""
    if not caches(settings):
        return None
    return StaleCache(
        settings.cache_ttl, settings.stale_if_error, CACHE_ENTRIES, clock, max_size=CACHE_SIZE
    )


def caches(settings: Settings) -> bool:
    return settings.cache_ttl > 0 or settings.stale_if_error > 0

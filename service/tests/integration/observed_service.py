"""The service on a free port, with all that its operators could see of it."""

import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from structlog.testing import capture_logs

from event_service.app import QUEUE_FACTOR, build_breakers, build_events_api
from event_service.context import CallContext
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.settings import Settings
from halfopen import CallFailed, CallIgnored, CallRejected, CallSucceeded, CircuitBreaker

from .conftest import serving

VERDICTS = {
    CallSucceeded: "success",
    CallFailed: "failure",
    CallIgnored: "neutral",
    CallRejected: "rejected",
}


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """What an observer of the upstream's policies is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.retries: list[tuple[str, int, float]] = []
        self.given_up: list[tuple[str, int, str]] = []
        self.shared_calls = 0
        self.cache_hits: list[str] = []

    def attempt_started(self, operation: str, number: int) -> None:
        pass

    def called(self, operation: str, outcome: str, duration: float) -> None:
        assert duration >= 0
        self.calls.append((operation, outcome))

    def retried(self, operation: str, attempt: int, error: Exception, wait: float) -> None:
        assert isinstance(error, Exception)
        self.retries.append((operation, attempt, wait))

    def gave_up(self, operation: str, error: Exception, attempt: int, reason: str) -> None:
        assert isinstance(error, Exception)
        self.given_up.append((operation, attempt, reason))

    def shared(self, operation: str, leader: CallContext | None) -> None:
        self.shared_calls += 1

    def cache_hit(self, operation: str) -> None:
        self.cache_hits.append(operation)


@dataclass
class ObservedService:
    client: aiohttp.ClientSession
    breakers: dict[str, CircuitBreaker]
    bulkhead: Bulkhead
    heard: Heard
    lines: list[MutableMapping[str, Any]]
    verdicts: list[tuple[str, str]] = field(default_factory=list)

    def of(self, operation: str) -> list[str]:
        """How the calls of one operation counted, in their order."""
        return [verdict for name, verdict in self.verdicts if name == operation]


@asynccontextmanager
async def observed(
    *, clock: Callable[[], float] = time.monotonic, **values: Any
) -> AsyncIterator[ObservedService]:
    settings = Settings(**{"env": "testing", **values})
    heard = Heard()
    breakers = build_breakers(settings, clock=clock)
    bulkhead = Bulkhead(
        settings.upstream_concurrency, max_waiting=QUEUE_FACTOR * settings.upstream_concurrency
    )
    api, close = build_events_api(
        settings,
        breakers,
        bulkhead=bulkhead,
        budget=RetryBudget(settings.retry_budget, clock=clock),
        observer=heard,
        trace=None,
        clock=clock,
    )
    with capture_logs() as lines:
        async with serving(settings, api=api, clock=clock) as client:
            service = ObservedService(client, breakers, bulkhead, heard, lines)
            for breaker in breakers.values():
                for event, verdict in VERDICTS.items():
                    breaker.on(event, _note(service.verdicts, breaker.name, verdict))
            yield service
    await close()


def _note(verdicts: list[tuple[str, str]], name: str, verdict: str) -> Callable[[object], None]:
    return lambda _event: verdicts.append((name, verdict))


async def problem(response: aiohttp.ClientResponse) -> tuple[int, str, dict[str, Any]]:
    """Status, slug and members of a problem."""
    assert response.content_type == "application/problem+json"
    members: dict[str, Any] = await response.json(content_type=None)
    return response.status, members["type"].removeprefix("/problems/"), members

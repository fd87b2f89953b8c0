"""The service on a free port, with all that its operators could see of it."""

import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from structlog.testing import capture_logs

from event_service.libs.bulkhead import Bulkhead
from event_service.settings import Settings
from event_service.signals import (
    AttemptEnded,
    CacheHit,
    GaveUp,
    GuardsBuilt,
    Retried,
    Shared,
    Signal,
    Signals,
)
from event_service.sources.guarded import Source
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
    """What a listener is told of the upstream's policies."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.retries: list[tuple[str, int, float]] = []
        self.given_up: list[tuple[str, int, str]] = []
        self.shared_calls = 0
        self.cache_hits: list[str] = []
        self.guards: GuardsBuilt | None = None

    def listen(self, signals: Signals) -> None:
        for kind in (GuardsBuilt, AttemptEnded, Retried, GaveUp, Shared, CacheHit):
            signals.on(kind, self._hear)

    def _hear(self, signal: Signal) -> None:
        match signal:
            case GuardsBuilt():
                self.guards = signal
            case AttemptEnded():
                assert signal.duration >= 0
                self.calls.append((signal.operation, signal.outcome))
            case Retried():
                assert isinstance(signal.error, Exception)
                self.retries.append((signal.operation, signal.attempt, signal.wait))
            case GaveUp():
                assert isinstance(signal.error, Exception)
                self.given_up.append((signal.operation, signal.attempt, signal.reason))
            case Shared():
                self.shared_calls += 1
            case CacheHit():
                self.cache_hits.append(signal.operation)


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
    *,
    clock: Callable[[], float] = time.monotonic,
    source: Source | None = None,
    **values: Any,
) -> AsyncIterator[ObservedService]:
    settings = Settings(**{"env": "testing", **values})
    heard = Heard()
    with capture_logs() as lines:
        async with serving(settings, source=source, clock=clock, listeners=[heard]) as client:
            guards = heard.guards
            assert guards is not None
            service = ObservedService(client, dict(guards.breakers), guards.bulkhead, heard, lines)
            for breaker in guards.breakers.values():
                for event, verdict in VERDICTS.items():
                    breaker.on(event, _note(service.verdicts, breaker.name, verdict))
            yield service


def _note(verdicts: list[tuple[str, str]], name: str, verdict: str) -> Callable[[object], None]:
    return lambda _event: verdicts.append((name, verdict))


async def problem(response: aiohttp.ClientResponse) -> tuple[int, str, dict[str, Any]]:
    """Status, slug and members of a problem."""
    assert response.content_type == "application/problem+json"
    members: dict[str, Any] = await response.json(content_type=None)
    return response.status, members["type"].removeprefix("/problems/"), members

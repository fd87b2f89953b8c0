from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from halfopen.state import State

if TYPE_CHECKING:
    from halfopen.breaker import CircuitBreaker


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have: the breaker itself. Its `name` is the label for logs and metrics."""

    breaker: CircuitBreaker


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """From `old` to `new`. `reason` is one of few texts, such as the rule that tripped."""

    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class CallSucceeded(Event):
    """A call counted as a success. While somebody listens, healthy calls take a lock."""


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A call counted as a failure. `error` is None for a bad result."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CallIgnored(Event):
    """A call counted as neither: it was neutral, or its result came too late."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CallRejected(Event):
    """A call was refused in `state`, for another `retry_after` seconds."""

    state: State
    retry_after: float


@dataclass(frozen=True, slots=True)
class ProbeExpired(Event):
    """A probe lost its slot after the probe timeout; its result will not count."""

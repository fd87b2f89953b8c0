from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from halfopen.state import State

if TYPE_CHECKING:
    from halfopen.breaker import CircuitBreaker


@dataclass(frozen=True, slots=True)
class Event:
    """What every event has: the breaker it happened to (`event.breaker.name` names it)."""

    breaker: CircuitBreaker


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The circuit went from `old` to `new`; `reason` is one of a few fixed texts, fit for a label."""

    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class CallSucceeded(Event):
    """A call counted as a success. Listening to it makes every healthy call tell about itself."""


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A call counted as a failure: it raised `error`, or returned a bad result (then None)."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CallIgnored(Event):
    """A call counted as neither: it was neutral, or came too late, from an earlier state."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CallRejected(Event):
    """A call was refused in `state`; the next try may be in `retry_after` seconds."""

    state: State
    retry_after: float


@dataclass(frozen=True, slots=True)
class ProbeExpired(Event):
    """A probe was silent for the probe timeout and lost its slot; its result will not count."""

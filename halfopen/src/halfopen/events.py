"""What a breaker tells its listeners."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from halfopen.state import State

if TYPE_CHECKING:
    from halfopen.breaker import CircuitBreaker

logger = logging.getLogger("halfopen")


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


class Listeners:
    """Hands events to listeners, in order and one at a time, without a lock that anyone waits for.

    Whoever finds nobody delivering delivers all that is queued. A listener that uses the breaker,
    or another thread, just queues what happens, and it is delivered in its turn.
    """

    def __init__(self) -> None:
        self.of: dict[type[Event], tuple[Callable[[Any], object], ...]] = {}
        self.queue: deque[Event] = deque()
        self._turn = Lock()  # only ever tried

    def deliver(self) -> None:
        # Looks again after its turn: what was queued in between had found the turn taken.
        while self.queue and self._turn.acquire(blocking=False):
            try:
                while self.queue:
                    self._tell(self.queue.popleft())
            finally:
                self._turn.release()

    def _tell(self, event: Event) -> None:
        for listener in self.of.get(type(event), ()):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of %s raised", type(event).__name__)

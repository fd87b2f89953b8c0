"""The circuit breakers on the dashboard."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from event_service import context
from event_service.dashboard.live_frame import Breaker, LastFailure, Rule, Transition
from event_service.errors import UpstreamError
from event_service.telemetry.transitions import reason_of, rule_text
from halfopen import (
    CallFailed,
    CircuitBreaker,
    FailureCount,
    FailureRate,
    Reading,
    SlowCallRate,
    State,
    StateChanged,
    TimeWindow,
)

TRANSITIONS_KEPT = 60
# As many as the page can show as separate marks.
_FAILURES_KEPT = 60
# Seconds. A failed attempt and a failed call within this time are the same failure.
_TOGETHER = 0.01


class _Change(NamedTuple):
    number: int
    at: float
    event: StateChanged
    reason: str


class _LastFailure(NamedTuple):
    at: float
    what: str
    duration: float | None
    request_id: str


class LiveBreakers:
    """Remembers the latest transitions of all breakers, and the latest failures of each."""

    def __init__(
        self, clock: Callable[[], float], release_at: Callable[[str], float | None]
    ) -> None:
        """`release_at`: returns when a breaker's isolation ends automatically, in Unix seconds."""
        self._clock = clock
        self._release_at = release_at
        self._breakers: list[CircuitBreaker] = []
        self._failed_at: dict[str, deque[float]] = {}
        self._left_closed_at: dict[str, float] = {}
        self._changes: deque[_Change] = deque(maxlen=TRANSITIONS_KEPT)
        self._changed = 0
        self._last_failures: dict[str, _LastFailure] = {}
        self._last_attempts: dict[str, tuple[float, float]] = {}

    def watch(self, breaker: CircuitBreaker) -> None:
        self._breakers.append(breaker)
        self._failed_at[breaker.name] = deque(maxlen=_FAILURES_KEPT)
        breaker.on(CallFailed, self._call_failed)
        breaker.on(StateChanged, self._state_changed)

    def attempt_failed(self, breaker: str, duration: float) -> None:
        """Record that an attempt behind this breaker failed after `duration` seconds."""
        now = self._clock()
        self._last_attempts[breaker] = (now, duration)
        last = self._last_failures.get(breaker)
        if last is not None and last.duration is None and now - last.at < _TOGETHER:
            self._last_failures[breaker] = last._replace(duration=duration)

    def read(self, now: float, epoch: float) -> list[Breaker]:
        """`epoch`: the Unix time at which the clock of `now` was 0."""
        return [self._breaker(breaker, now, epoch) for breaker in self._breakers]

    def transitions(self, epoch: float) -> list[Transition]:
        """The latest transitions, oldest first."""
        return [
            Transition(
                number=change.number,
                at=round(epoch + change.at, 3),
                breaker=change.event.breaker.name,
                old=change.event.old.value,
                new=change.event.new.value,
                reason=change.reason,
            )
            for change in self._changes
        ]

    def _call_failed(self, event: CallFailed) -> None:
        now, name, error = self._clock(), event.breaker.name, event.error
        self._failed_at[name].append(now)
        at, duration = self._last_attempts.pop(name, (-1.0, 0.0))
        call = context.current.get()
        self._last_failures[name] = _LastFailure(
            now,
            error.reason if isinstance(error, UpstreamError) else type(error).__name__,
            duration if now - at < _TOGETHER else None,
            "" if call is None else call.request_id,
        )

    def _state_changed(self, event: StateChanged) -> None:
        now = self._clock()
        name = event.breaker.name
        if event.new is State.CLOSED:
            self._failed_at[name].clear()
            self._left_closed_at.pop(name, None)
        else:
            self._left_closed_at.setdefault(name, now)
        self._changed += 1
        self._changes.append(_Change(self._changed, now, event, reason_of(event)))

    def _breaker(self, breaker: CircuitBreaker, now: float, epoch: float) -> Breaker:
        snapshot = breaker.snapshot()
        rules = [_rule(reading) for reading in snapshot.rules]
        window = max((rule.window or 0.0 for rule in rules), default=0.0)
        troubled = self._left_closed_at.get(snapshot.name)
        waits = snapshot.state is State.OPEN
        return Breaker(
            name=snapshot.name,
            state=snapshot.state.value,
            since=round(epoch + now - snapshot.in_state_for, 1),
            troubled_since=None if troubled is None else round(epoch + troubled, 1),
            retry_at=round(epoch + now + snapshot.retry_after, 1) if waits else None,
            cooldown=snapshot.next_cooldown,
            rules=rules,
            failed_at=[
                round(epoch + at, 2) for at in self._failed_at[breaker.name] if now - at <= window
            ],
            probes=snapshot.probes,
            probes_allowed=snapshot.probes_allowed,
            rejected=snapshot.rejected,
            opened=snapshot.opened,
            release_at=self._release_at(snapshot.name),
            last_failure=_last_failure(self._last_failures.get(snapshot.name), epoch),
        )


def _last_failure(last: _LastFailure | None, epoch: float) -> LastFailure | None:
    if last is None:
        return None
    duration = None if last.duration is None else round(last.duration, 5)
    return LastFailure(last.what[:200], round(epoch + last.at, 3), duration, last.request_id)


def _rule(reading: Reading) -> Rule:
    rule = reading.rule
    window: float | None = None
    minimum = 0
    match rule:
        case FailureCount():
            window = rule.within
        case FailureRate() | SlowCallRate():
            minimum = rule.minimum_calls
            window = rule.over.seconds if isinstance(rule.over, TimeWindow) else None
        case _:
            pass
    return Rule(
        text=rule_text(rule),
        value=reading.value,
        threshold=reading.threshold,
        bad=reading.bad,
        calls=reading.calls,
        minimum_calls=minimum,
        window=window,
    )

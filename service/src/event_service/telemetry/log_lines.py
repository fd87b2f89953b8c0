import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from event_service.errors import DeadlineExceeded, Overloaded, UpstreamError, UserNotFound
from event_service.signals import BrokenOff, GaveUp, GuardsBuilt, RequestDone, Retried, Signals
from event_service.telemetry import transitions
from event_service.telemetry.logs import (
    JsonLines,
    current_node,
    current_worker,
    describe,
    is_wanted,
)
from event_service.telemetry.printable import printable
from halfopen import CallFailed, CircuitBreaker, State, StateChanged

_API = "/api/"
# Long paths are cut here: the rest would only fill disks.
_LONGEST_PATH = 1024

# With fewer calls in flight, a broken connection says nothing about the limit.
_MANY_CALLS = 100
_MINUTE = 60.0

_LEVEL_NAMES = {
    level: logging.getLevelName(level).lower()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
}
# Plain numbers: Python takes as long to look up a member of an enumeration as for all else here.
_BUG = HTTPStatus.INTERNAL_SERVER_ERROR.value
_REFUSED = HTTPStatus.SERVICE_UNAVAILABLE.value
_REASONED = (UpstreamError, DeadlineExceeded, UserNotFound)
_encode = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, omit_defaults=True, gc=False):
    """The members of a request's log line, in order."""

    timestamp: datetime
    level: str
    event: str
    request_id: str
    trace_id: str
    method: str
    route: str
    path: str
    status: int
    duration_ms: float
    client: str
    upstream_calls: int
    worker: int
    node: str = ""
    failed_events: int = 0
    slow: bool = False
    error: str = ""
    operation: str = ""
    reason: str = ""
    exception: Any = None


class LogLines:
    """Writes the operator's log: requests, breaker transitions, retries that gave up.

    A request's line is an error if the service or the upstream failed it, a warning if it was
    refused or took `slow_request` seconds or more, and information otherwise.
    """

    def __init__(self, *, slow_request: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._slow_request = slow_request
        self._clock = clock
        self._silent_until = float("-inf")
        self._last_failure: dict[str, str] = {}
        self._log = structlog.get_logger()
        self._worker, self._node = current_worker(), current_node()
        output = structlog.get_config()["logger_factory"]()
        # The most frequent line bypasses structlog's processors.
        self._json = output if isinstance(output, JsonLines) else None

    def listen(self, signals: Signals) -> None:
        signals.on(GuardsBuilt, self._guards_built)
        signals.on(RequestDone, self.request_done)
        signals.on(BrokenOff, self._broken_off)
        signals.on(Retried, self._retried)
        signals.on(GaveUp, self._gave_up)

    def request_done(self, record: RequestDone) -> None:
        slow = record.duration >= self._slow_request and record.route.startswith(_API)
        if slow or record.error is not None or record.status >= _BUG:
            level = _level(record, slow=slow)
        else:
            level = logging.INFO
        if self._json is not None and not is_wanted(level):
            return
        path = record.path[:_LONGEST_PATH]
        line = _Request(
            timestamp=datetime.now(UTC),
            level=_LEVEL_NAMES[level],
            event="request",
            request_id=record.request_id,
            trace_id=record.trace_id,
            method=record.method,
            route=record.route,
            path=path if path.isprintable() else printable(path),
            status=record.status,
            duration_ms=round(record.duration * 1000, 2),
            client=record.client,
            upstream_calls=record.upstream_calls,
            worker=self._worker,
            node=self._node,
            slow=slow,
        )
        if record.failed_events:
            line.failed_events = record.failed_events
        error = record.error
        if error is not None:
            line.error = type(error).__name__
            if isinstance(error, _REASONED):
                line.operation, line.reason = error.operation, error.reason
            elif isinstance(error, Overloaded):
                line.reason = error.reason
        bug = error if record.status == _BUG else None
        if self._json is None:
            self._write_readable(level, line, bug)
            return
        if bug is not None:
            line.exception = describe(bug)
        self._json.write_soon(_encode(line))

    def _write_readable(self, level: int, line: _Request, bug: Exception | None) -> None:
        members = msgspec.structs.asdict(line)
        # Members that the logger adds itself, and empty ones.
        for name in ("timestamp", "level", "request_id", "trace_id", "worker", "node", "exception"):
            del members[name]
        for name in ("failed_events", "slow", "error", "operation", "reason"):
            if not members[name]:
                del members[name]
        self._log.log(level, **members, exc_info=bug)

    def _guards_built(self, signal: GuardsBuilt) -> None:
        for breaker in signal.breakers.values():
            self.watch(breaker)

    def watch(self, breaker: CircuitBreaker) -> None:
        breaker.on(CallFailed, self._call_failed)
        breaker.on(StateChanged, self._state_changed)

    def _call_failed(self, event: CallFailed) -> None:
        self._last_failure[event.breaker.name] = _failure(event.error)

    def _state_changed(self, event: StateChanged) -> None:
        name = event.breaker.name
        snapshot = event.breaker.snapshot()
        refusing = event.new in {State.OPEN, State.ISOLATED}
        reason = transitions.reason_of(event)
        if event.old is State.HALF_OPEN and event.new is State.OPEN and name in self._last_failure:
            reason = f"{reason}: {self._last_failure[name]}"
        self._log.log(
            logging.WARNING if refusing else logging.INFO,
            "breaker state changed",
            message=transitions.describe(event, reason),
            breaker=name,
            old=event.old.value,
            new=event.new.value,
            reason=reason,
            failures_in_window=max(rule.bad for rule in snapshot.rules),
            next_try_s=round(snapshot.retry_after, 3),
        )

    def _broken_off(self, signal: BrokenOff) -> None:
        now = self._clock()
        if signal.in_flight <= _MANY_CALLS or now < self._silent_until:
            return
        self._silent_until = now + _MINUTE
        self._log.warning(
            "upstream connections break off",
            message="UPSTREAM_CONCURRENCY may be too high for this upstream",
            operation=signal.operation,
            in_flight=signal.in_flight,
        )

    def _retried(self, signal: Retried) -> None:
        self._log.debug(
            "upstream retry",
            operation=signal.operation,
            attempt=signal.attempt,
            error=type(signal.error).__name__,
            wait_s=round(signal.wait, 3),
        )

    def _gave_up(self, signal: GaveUp) -> None:
        error = signal.error
        self._log.warning(
            "upstream retries given up",
            operation=signal.operation,
            attempt=signal.attempt,
            error=type(error).__name__,
            reason=error.reason if isinstance(error, UpstreamError) else "",
            why=signal.reason,
        )


def _failure(error: BaseException | None) -> str:
    return error.reason if isinstance(error, UpstreamError) else type(error).__name__


def _level(record: RequestDone, *, slow: bool) -> int:
    status = record.status
    if status >= _BUG:
        # A refusal with `Retry-After` is normal behaviour, not an error.
        return logging.WARNING if status == _REFUSED else logging.ERROR
    error = record.error
    odd = isinstance(error, UserNotFound) and not error.usual
    return logging.WARNING if slow or odd else logging.INFO

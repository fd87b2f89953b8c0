"""Gathers what the dashboard shows, in fixed memory."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from event_service.dashboard import live_frame
from event_service.dashboard.live_breakers import LiveBreakers
from event_service.dashboard.live_frame import OUTCOMES, FailedRequest, Frame
from event_service.dashboard.rolling_stats import HISTORY, RECENT, Percentiles, RollingStats
from event_service.errors import (
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
)
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.signals import (
    UNMATCHED,
    AttemptEnded,
    CacheHit,
    GaveUp,
    GuardsBuilt,
    RequestDone,
    Retried,
    Shared,
    Signal,
    Signals,
)
from halfopen import CircuitBreaker, CircuitOpen

FAILURES_KEPT = 40
OTHER = "other paths"
_LONGEST_TEXT = 200

_OK, _REFUSED, _TIMEOUT, _LIMITED, _FAILED, _CLIENT = range(len(OUTCOMES))
_BAD = slice(_REFUSED, _FAILED + 1)
_UPSTREAM_WORKS = {"ok", "refused", "not_found"}

_encode = msgspec.json.Encoder().encode


class Identity(NamedTuple):
    """Whose numbers these are. `workers`: how many processes share the port."""

    version: str
    environment: str
    workers: int


class _Failure(NamedTuple):
    number: int
    at: float
    outcome: int
    record: tuple[str, str, int, float, str, str]
    cause: str


class LiveFeed:
    """The dashboard's view of this process; use it on one event loop only.

    Requests count for their endpoint; those that no route takes, for "other paths". The
    service's own pages are left out.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        operations: Sequence[str],
        bulkhead: Bulkhead,
        budget: RetryBudget,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._wall_clock = wall_clock
        self._started = clock()
        self._second = int(self._started)
        self._bulkhead = bulkhead
        self._budget = budget
        self._operations = {name: RollingStats(2) for name in operations}
        self._other = RollingStats(len(OUTCOMES))
        self._endpoints: dict[str, RollingStats] = {}
        self._methods: dict[str, str] = {}
        self._breakers = LiveBreakers(clock)
        self._counts: Counter[type[Signal]] = Counter()
        self._failed = 0
        self._failures: deque[_Failure] = deque(maxlen=FAILURES_KEPT)
        self._frame_number = 0
        self._framed_second = -1
        self._encoded = b""

    def add_endpoint(self, route: str, methods: Collection[str]) -> None:
        """Count requests for this route's template from now on."""
        self._endpoints[route] = RollingStats(len(OUTCOMES))
        self._methods[route] = " ".join(sorted(set(methods) - {"HEAD"}))

    def listen(self, signals: Signals) -> None:
        signals.on(GuardsBuilt, self._guards_built)
        signals.on(RequestDone, self.request_done)
        signals.on(AttemptEnded, self._attempt_ended)
        for kind in (Retried, GaveUp, Shared, CacheHit):
            signals.on(kind, self._count)

    def request_done(self, record: RequestDone) -> None:
        stats = self._endpoints.get(record.route)
        if stats is None:
            if record.route != UNMATCHED:
                return
            stats = self._other
        now = self._clock()
        if int(now) != self._second:
            self._close_seconds(now)
        if record.error is None and record.status < HTTPStatus.BAD_REQUEST:
            stats.add(_OK, record.duration)
            return
        outcome = _outcome(record)
        stats.add(outcome, record.duration)
        if outcome != _CLIENT:
            self._keep_failure(record, outcome, now)

    def watch(self, breaker: CircuitBreaker) -> None:
        self._breakers.watch(breaker)

    def _guards_built(self, signal: GuardsBuilt) -> None:
        for breaker in signal.breakers.values():
            self.watch(breaker)

    def _attempt_ended(self, signal: AttemptEnded) -> None:
        now = self._clock()
        if int(now) != self._second:
            self._close_seconds(now)
        stats = self._operations.get(signal.operation)
        if stats is not None and signal.outcome != "cancelled":
            stats.add(signal.outcome not in _UPSTREAM_WORKS, signal.duration)

    def _count(self, signal: Signal) -> None:
        self._counts[type(signal)] += 1

    def frame(self) -> tuple[int, bytes]:
        """The number and the JSON of the newest frame, made anew at most once a second."""
        now = self._clock()
        if int(now) != self._framed_second:
            self._close_seconds(now)
            self._framed_second = int(now)
            self._frame_number += 1
            self._encoded = _encode(self.read())
        return self._frame_number, self._encoded

    def read(self) -> Frame:
        """Everything as it is now."""
        now = self._clock()
        self._close_seconds(now)
        endpoints = [
            _endpoint(self._methods[route], route, stats)
            for route, stats in self._endpoints.items()
        ]
        other = _endpoint("", OTHER, self._other)
        if any(other.requests):
            endpoints.append(other)
        return Frame(
            number=self._frame_number,
            time=self._wall_clock(),
            uptime=now - self._started,
            version=self._identity.version,
            environment=self._identity.environment,
            worker=os.getpid(),
            workers=self._identity.workers,
            recent=RECENT,
            rate=round(sum(endpoint.rate for endpoint in endpoints), 1),
            breakers=self._breakers.read(now),
            endpoints=endpoints,
            upstream=self._upstream(),
            transitions=self._breakers.transitions(now),
            failures=[_failed_request(failure, now) for failure in self._failures],
            failed=self._failed,
        )

    def _close_seconds(self, now: float) -> None:
        second = int(now)
        for _ in range(min(second - self._second, HISTORY + 1)):
            for stats in (*self._endpoints.values(), self._other, *self._operations.values()):
                stats.close_second()
        self._second = second

    def _keep_failure(self, record: RequestDone, outcome: int, now: float) -> None:
        # Texts alone: an error would keep its traceback, and with it the request, alive.
        self._failed += 1
        self._failures.append(
            _Failure(
                self._failed,
                now,
                outcome,
                (
                    record.method[:_LONGEST_TEXT],
                    record.path[:_LONGEST_TEXT],
                    record.status,
                    record.duration,
                    record.request_id,
                    record.trace_id,
                ),
                _cause(record.error),
            )
        )

    def _upstream(self) -> live_frame.Upstream:
        return live_frame.Upstream(
            in_flight=self._bulkhead.in_flight,
            limit=self._bulkhead.limit,
            waiting=self._bulkhead.waiting,
            retries_left=round(self._budget.remaining, 1),
            retries=self._counts[Retried],
            gave_up=self._counts[GaveUp],
            shared=self._counts[Shared],
            cache_hits=self._counts[CacheHit],
            operations=[_operation(name, stats) for name, stats in self._operations.items()],
        )


def _endpoint(method: str, route: str, stats: RollingStats) -> live_frame.Endpoint:
    by_second = stats.counts_by_second()
    recent = stats.recent()
    calls = sum(recent.counts)
    totals = [sum(column) for column in zip(*by_second, strict=True)]
    return live_frame.Endpoint(
        method=method,
        route=route,
        requests=[sum(counts) for counts in by_second],
        errors=[sum(counts[_BAD]) for counts in by_second],
        counts=dict(zip(OUTCOMES, totals, strict=True)),
        rate=calls / RECENT,
        error_share=sum(recent.counts[_BAD]) / calls if calls else None,
        latency=_latency(recent.latency),
    )


def _operation(name: str, stats: RollingStats) -> live_frame.Operation:
    by_second = stats.latency_by_second()
    recent = stats.recent()
    calls = sum(recent.counts)
    return live_frame.Operation(
        name=name,
        p50=[_rounded(second.p50) for second in by_second],
        p95=[_rounded(second.p95) for second in by_second],
        rate=calls / RECENT,
        error_share=recent.counts[1] / calls if calls else None,
        latency=_latency(recent.latency),
    )


def _outcome(record: RequestDone) -> int:
    match record.error:
        case CircuitOpen():
            return _REFUSED
        case UpstreamTimeout() | DeadlineExceeded():
            return _TIMEOUT
        case RateLimited() | Overloaded():
            return _LIMITED
        case _:
            return _FAILED if record.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _CLIENT


def _cause(error: Exception | None) -> str:
    match error:
        case None:
            return ""
        case UpstreamError():
            return f"{error.operation}: {error.reason}"[:_LONGEST_TEXT]
        case CircuitOpen():
            return f"{error.name} is {error.state.value.replace('_', '-')}"
        case _:
            return type(error).__name__


def _failed_request(failure: _Failure, now: float) -> FailedRequest:
    method, path, status, duration, request_id, trace_id = failure.record
    return FailedRequest(
        number=failure.number,
        age=round(now - failure.at, 3),
        outcome=OUTCOMES[failure.outcome],
        method=method,
        path=path,
        status=status,
        duration=_rounded(duration) or 0.0,
        request_id=request_id,
        trace_id=trace_id,
        cause=failure.cause,
    )


def _latency(percentiles: Percentiles) -> live_frame.Latency:
    return live_frame.Latency(*map(_rounded, percentiles))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)

"""Collects the dashboard's data in a fixed amount of memory."""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from event_service.dashboard import live_frame
from event_service.dashboard.live_breakers import LiveBreakers
from event_service.dashboard.live_failures import (
    CLIENT,
    FAILED,
    LIMITED,
    OK,
    REFUSED,
    LiveFailures,
    outcome_of,
)
from event_service.dashboard.live_frame import OUTCOMES, Frame
from event_service.dashboard.process_figures import ProcessFigures, memory
from event_service.dashboard.rolling_stats import (
    LONG,
    RECENT,
    Percentiles,
    RollingStats,
    recent_of,
)
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.signals import (
    UNMATCHED,
    Admission,
    AdmissionBuilt,
    AttemptEnded,
    CacheHit,
    ClusterSeen,
    GaveUp,
    GuardsBuilt,
    LoadShed,
    OutboxSeen,
    RateExceeded,
    RequestDone,
    Retried,
    Shared,
    Signal,
    Signals,
)
from halfopen import CircuitBreaker

OTHER = "other paths"

# Seconds. If wall clock and monotonic clock differ by more, the machine was suspended.
_CLOCKS_DIFFER = 1.0
_BAD = slice(REFUSED, FAILED + 1)
_BAD_REQUEST = HTTPStatus.BAD_REQUEST.value  # looking up enum members is slow
_UPSTREAM_WORKS = {"ok", "refused", "not_found"}

_encode = msgspec.json.Encoder().encode


class Identity(NamedTuple):
    """The process that a frame describes. `worker` is its number in the log, of `workers`."""

    version: str
    environment: str
    workers: int
    worker: int = 1


class LiveFeed:
    """The dashboard's view of this process; use it on one event loop only.

    Requests are counted by endpoint, and as "other paths" if no route matches. The service's own
    pages are not counted.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        operations: Sequence[str],
        bulkhead: Bulkhead,
        budget: RetryBudget,
        loop_lag: Callable[[], float] = lambda: 0.0,
        steady_lag: Callable[[], float] = lambda: 0.0,
        release_at: Callable[[str], float | None] = lambda _: None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._wall_clock = wall_clock
        self._epoch = wall_clock() - clock()
        self._started = clock()
        self._second = self._stretch = int(self._started)
        self._closed = 0
        self._bulkhead = bulkhead
        self._budget = budget
        self._operations = {name: RollingStats(2) for name in operations}
        self._other = RollingStats(len(OUTCOMES))
        self._endpoints: dict[str, RollingStats] = {}
        self._methods: dict[str, str] = {}
        self._breakers = LiveBreakers(clock, release_at)
        self._counts: Counter[type[Signal]] = Counter()
        self._turned_away = RollingStats(2)
        self._failures = LiveFailures()
        self._loop_lag = loop_lag
        self._steady_lag = steady_lag
        self._process = ProcessFigures(clock)
        self._admission: Admission | None = None
        self._outbox: live_frame.Outbox | None = None
        self._cluster: live_frame.Cluster | None = None
        self._frame_number = 0
        self._framed_second = -1
        self._encoded = b""

    def add_endpoint(self, route: str, methods: Collection[str]) -> None:
        """Count requests for this route template from now on."""
        self._endpoints[route] = RollingStats(len(OUTCOMES))
        self._methods[route] = " ".join(sorted(set(methods) - {"HEAD"}))

    def listen(self, signals: Signals) -> None:
        signals.on(GuardsBuilt, self._guards_built)
        signals.on(RequestDone, self.request_done)
        signals.on(AttemptEnded, self._attempt_ended)
        for kind in (Retried, GaveUp, Shared, CacheHit):
            signals.on(kind, self._count)
        signals.on(LoadShed, lambda _: self._turned_away.add(0, None))
        signals.on(RateExceeded, lambda _: self._turned_away.add(1, None))
        signals.on(AdmissionBuilt, self._admission_built)
        signals.on(OutboxSeen, self._outbox_seen)
        signals.on(ClusterSeen, self._cluster_seen)

    def request_done(self, record: RequestDone) -> None:
        stats = self._endpoints.get(record.route)
        if stats is None:
            if record.route != UNMATCHED:
                return
            stats = self._other
        now = self._clock()
        if int(now) != self._second:
            self._close_seconds(now)
        if record.error is None and record.status < _BAD_REQUEST:
            stats.add(OK, record.duration)
            return
        outcome = outcome_of(record)
        stats.add(outcome, None if outcome in {REFUSED, LIMITED} else record.duration)
        if outcome != CLIENT:
            self._failures.keep(record, outcome, now)

    def watch(self, breaker: CircuitBreaker) -> None:
        self._breakers.watch(breaker)

    def _guards_built(self, signal: GuardsBuilt) -> None:
        for breaker in signal.breakers.values():
            self.watch(breaker)

    def _admission_built(self, signal: AdmissionBuilt) -> None:
        self._admission = signal.admission

    def _outbox_seen(self, signal: OutboxSeen) -> None:
        self._outbox = live_frame.Outbox(signal.pending, round(signal.oldest, 1))

    def _cluster_seen(self, signal: ClusterSeen) -> None:
        self._cluster = live_frame.Cluster(signal.figures.joined, signal.figures.nodes)

    def _attempt_ended(self, signal: AttemptEnded) -> None:
        now = self._clock()
        if int(now) != self._second:
            self._close_seconds(now)
        stats = self._operations.get(signal.operation)
        if stats is not None and signal.outcome != "cancelled":
            failed = signal.outcome not in _UPSTREAM_WORKS
            stats.add(failed, signal.duration)
            if failed:
                self._breakers.attempt_failed(signal.operation, signal.duration)

    def _count(self, signal: Signal) -> None:
        self._counts[type(signal)] += 1

    def frame(self) -> tuple[int, bytes]:
        """The number and the JSON of the newest frame, which is updated at most once a second."""
        now = self._clock()
        if int(now) != self._framed_second:
            self._close_seconds(now)
            self._framed_second = int(now)
            self._frame_number += 1
            self._encoded = _encode(self.read())
        return self._frame_number, self._encoded

    def read(self) -> Frame:
        """The current frame."""
        now, epoch = self._clock(), self._unix_epoch()
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
            time=round(epoch + now, 3),
            second=round(epoch + self._second, 3),
            stretch=round(epoch + self._stretch, 3),
            started=round(epoch + self._started, 3),
            version=self._identity.version,
            environment=self._identity.environment,
            worker=os.getpid(),
            worker_number=self._identity.worker,
            workers=self._identity.workers,
            recent=RECENT,
            rate=round(sum(endpoint.rate for endpoint in endpoints), 1),
            breakers=self._breakers.read(now, epoch),
            endpoints=endpoints,
            upstream=self._upstream(),
            transitions=self._breakers.transitions(epoch),
            failures=self._failures.failures(epoch),
            failed=self._failures.failed,
            refusals=self._failures.refusals(epoch),
            service=self._service(endpoints),
            outbox=self._outbox,
            cluster=self._cluster,
        )

    def _close_seconds(self, now: float) -> None:
        second = int(now)
        all_stats = self._all_stats()
        for _ in range(min(second - self._second, RECENT * LONG)):
            self._closed += 1
            for stats in all_stats:
                stats.close_second()
        # All statistics end a stretch in the same second.
        self._stretch = second - self._closed % RECENT
        self._second = second

    def _unix_epoch(self) -> float:
        """The Unix time at which the clock was 0. Updated if the machine was suspended."""
        epoch = self._wall_clock() - self._clock()
        if abs(epoch - self._epoch) > _CLOCKS_DIFFER:
            self._epoch = epoch
        return self._epoch

    def _all_stats(self) -> list[RollingStats]:
        requests = [*self._endpoints.values(), self._other]
        return [*requests, *self._operations.values(), self._turned_away]

    def _service(self, endpoints: Sequence[live_frame.Endpoint]) -> live_frame.Service:
        shed, limited = self._turned_away.recent().counts
        rate = sum(endpoint.rate for endpoint in endpoints)
        bad = sum(endpoint.rate * (endpoint.error_share or 0.0) for endpoint in endpoints)
        admission = self._admission
        return live_frame.Service(
            in_flight=0 if admission is None else admission.in_flight,
            max_in_flight=0 if admission is None else admission.max_in_flight,
            shed=shed / RECENT,
            limited=limited / RECENT,
            error_share=bad / rate if rate else None,
            latency=_latency(recent_of([*self._endpoints.values(), self._other])),
            cpu=round(self._process.cpu(), 2),
            memory=memory(),
            loop_lag=round(self._loop_lag(), 3),
            steady_lag=round(self._steady_lag(), 3),
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
    long = stats.counts_by_stretch()
    calls = sum(recent.counts)
    totals = [sum(column) for column in zip(*by_second, strict=True)]
    return live_frame.Endpoint(
        method=method,
        route=route,
        requests=[sum(counts) for counts in by_second],
        errors=[sum(counts[_BAD]) for counts in by_second],
        long_requests=[sum(counts) for counts in long],
        long_errors=[sum(counts[_BAD]) for counts in long],
        counts=dict(zip(OUTCOMES, totals, strict=True)),
        rate=calls / RECENT,
        error_share=sum(recent.counts[_BAD]) / calls if calls else None,
        latency=_latency(recent.latency),
        refused=(recent.counts[REFUSED] + recent.counts[LIMITED]) / RECENT,
    )


def _operation(name: str, stats: RollingStats) -> live_frame.Operation:
    by_second, long = stats.latency_by_second(), stats.latency_by_stretch()
    recent = stats.recent()
    calls = sum(recent.counts)
    return live_frame.Operation(
        name=name,
        p50=[_rounded(second.p50) for second in by_second],
        p95=[_rounded(second.p95) for second in by_second],
        long_p50=[_rounded(stretch.p50) for stretch in long],
        long_p95=[_rounded(stretch.p95) for stretch in long],
        rate=calls / RECENT,
        error_share=recent.counts[1] / calls if calls else None,
        latency=_latency(recent.latency),
        normal=_rounded(stats.usual()),
    )


def _latency(percentiles: Percentiles) -> live_frame.Latency:
    return live_frame.Latency(*map(_rounded, percentiles))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)

"""What Prometheus scrapes."""

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

from event_service.signals import (
    AttemptEnded,
    AttemptRefused,
    CacheHit,
    ClusterSeen,
    GuardsBuilt,
    LoadShed,
    RateExceeded,
    RequestDone,
    RequestStarted,
    Retried,
    Shared,
    Signals,
)
from event_service.telemetry.cells import Cells
from event_service.telemetry.exposition import BOUNDS, HISTOGRAM, SUM, build_registry
from halfopen import (
    CallFailed,
    CallIgnored,
    CircuitBreaker,
    State,
    StateChanged,
)

# The methods of RFC 9110 and PATCH. A client could invent any other, and each would make a series.
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
OTHER = "OTHER"

# Start at 0, so that the first opening is an increase and not a new series.
_USUAL_TRANSITIONS = (
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.HALF_OPEN),
    (State.HALF_OPEN, State.CLOSED),
    (State.HALF_OPEN, State.OPEN),
)
_CALL_OUTCOMES = {
    CallFailed: "failure",
    CallIgnored: "ignored",
}


class Metrics:
    """Counts signals in `cells`; `expose` renders the counts of all workers.

    `now` gives the exemplars' wall-clock time in seconds.
    """

    def __init__(self, cells: Cells, *, version: str, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._cells = cells
        self._values = cells.values
        self._in_flight = cells.claim("http_requests_in_flight")
        self._rate_limited = cells.claim("rate_limited")
        self._load_shed = cells.claim("load_shed")
        self._partial_replies = cells.claim("partial_replies")
        # The first cell of each combination of labels.
        self._requests: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._durations: dict[tuple[str, ...], int] = {}
        self._calls: dict[tuple[str, str], tuple[int, int]] = {}
        self._operations: dict[str, _Operation] = {}
        self._successes: dict[str, int] = {}
        self._rejections: dict[str, int] = {}
        self._cluster: _Cluster | None = None
        # The latest sampled request of each bucket, by the bucket's cell.
        self._exemplars: dict[int, tuple[str, float, float]] = {}
        self._registry = build_registry(cells, self._exemplars_of, version=version)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, with its media type: OpenMetrics if `accept` asks for it.

        An unreadable `accept` is ignored.
        """
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the library expects numbers in a version
            encode, media_type = choose_encoder("")
        return encode(self._registry), media_type

    def listen(self, signals: Signals) -> None:
        signals.on(GuardsBuilt, self._guards_built)
        signals.on(RequestStarted, self._request_started)
        signals.on(RequestDone, self.request_done)
        signals.on(AttemptEnded, self._attempt_ended)
        signals.on(AttemptRefused, lambda signal: self._count(self._rejections[signal.operation]))
        signals.on(Retried, lambda signal: self._count(self._operation(signal.operation).retries))
        signals.on(Shared, lambda signal: self._count(self._operation(signal.operation).shared))
        signals.on(CacheHit, lambda signal: self._count(self._operation(signal.operation).cached))
        signals.on(RateExceeded, lambda _: self._count(self._rate_limited))
        signals.on(LoadShed, lambda _: self._count(self._load_shed))
        signals.on(ClusterSeen, self._cluster_seen)

    def _count(self, cell: int) -> None:
        self._values[cell] += 1

    def _request_started(self, _signal: RequestStarted) -> None:
        self._values[self._in_flight] += 1

    def request_done(self, record: RequestDone) -> None:
        method = record.method if record.method in METHODS else OTHER
        key = (method, record.route, record.status)
        found = self._requests.get(key) or self._new_request(*key)
        values, duration = self._values, record.duration
        values[self._in_flight] -= 1
        values[found[0]] += 1
        if record.failed_events:
            values[self._partial_replies] += 1
        if record.streamed:
            return
        bucket = found[1] + bisect_left(BOUNDS, duration)
        values[bucket] += 1
        values[found[1] + SUM] += duration
        if record.sampled:
            self._exemplars[bucket] = (record.trace_id, duration, self._now())

    def _attempt_ended(self, signal: AttemptEnded) -> None:
        key, duration = (signal.operation, signal.outcome), signal.duration
        found = self._calls.get(key) or self._new_call(*key)
        values = self._values
        values[found[0]] += 1
        values[found[1] + bisect_left(BOUNDS, duration)] += 1
        values[found[1] + SUM] += duration
        if signal.succeeded:
            # The breaker emits no event for a success: that would cost more than the rest of a
            # call.
            values[self._successes[signal.operation]] += 1

    def _cluster_seen(self, signal: ClusterSeen) -> None:
        # Made only when needed: without a cluster these series do not exist.
        if self._cluster is None:
            claim = self._cells.claim
            self._cluster = _Cluster(
                nodes=claim("cluster_nodes"),
                joined=claim("cluster_joined"),
                granted=claim("cluster_claims", ("granted",)),
                refused=claim("cluster_claims", ("refused",)),
                round_trips=claim("cluster_round_trips"),
                gossip=claim("cluster_gossip_seconds"),
            )
        cells, values, figures = self._cluster, self._values, signal.figures
        values[cells.nodes] = figures.nodes
        values[cells.joined] = figures.joined
        values[cells.granted] = figures.claims_granted
        values[cells.refused] = figures.claims_refused
        values[cells.round_trips] = figures.round_trips
        values[cells.gossip] = figures.gossip or 0.0

    def _guards_built(self, signal: GuardsBuilt) -> None:
        for breaker in signal.breakers.values():
            self.watch(breaker)

    def watch(self, breaker: CircuitBreaker) -> None:
        claim, values, name = self._cells.claim, self._values, breaker.name
        self._operation(name)
        states = {state: claim("circuit_breaker_state", (name, state.value)) for state in State}
        transitions = {pair: self._new_transition(name, *pair) for pair in _USUAL_TRANSITIONS}

        def state_changed(event: StateChanged) -> None:
            values[states[event.old]], values[states[event.new]] = 0, 1
            pair = (event.old, event.new)
            if pair not in transitions:
                transitions[pair] = self._new_transition(name, *pair)
            values[transitions[pair]] += 1

        values[states[breaker.state]] = 1
        breaker.on(StateChanged, state_changed)
        self._successes[name] = claim("circuit_breaker_calls", (name, "success"))
        self._rejections[name] = claim("circuit_breaker_calls", (name, "rejected"))
        for event, outcome in _CALL_OUTCOMES.items():
            cell = claim("circuit_breaker_calls", (name, outcome))
            breaker.on(event, self._adder(cell))

    def _adder(self, cell: int) -> Callable[[object], None]:
        values = self._values

        def add(_event: object) -> None:
            values[cell] += 1

        return add

    def _new_request(self, method: str, route: str, status: int) -> tuple[int, int]:
        duration = self._durations.get((method, route))
        if duration is None:
            duration = self._cells.claim(
                "http_request_duration_seconds", (method, route), HISTOGRAM
            )
            self._durations[method, route] = duration
        count = self._cells.claim("http_requests", (method, route, str(status)))
        self._requests[method, route, status] = count, duration
        return count, duration

    def _new_call(self, operation: str, outcome: str) -> tuple[int, int]:
        count = self._cells.claim("upstream_requests", (operation, outcome))
        found = self._calls[operation, outcome] = count, self._operation(operation).durations
        return found

    def _new_transition(self, breaker: str, old: State, new: State) -> int:
        return self._cells.claim("circuit_breaker_transitions", (breaker, old.value, new.value))

    def _operation(self, operation: str) -> "_Operation":
        found = self._operations.get(operation)
        if found is None:
            claim = self._cells.claim
            found = self._operations[operation] = _Operation(
                durations=claim("upstream_request_duration_seconds", (operation,), HISTOGRAM),
                retries=claim("upstream_retries", (operation,)),
                shared=claim("single_flight_shared", (operation,)),
                cached=claim("cache_hits", (operation,)),
            )
        return found

    def _exemplars_of(self, metric: str, labels: tuple[str, ...]) -> list[Exemplar | None]:
        if metric != "http_request_duration_seconds" or labels not in self._durations:
            return [None] * SUM
        first = self._durations[labels]
        found = [self._exemplars.get(cell) for cell in range(first, first + SUM)]
        return [each and Exemplar({"trace_id": each[0]}, each[1], each[2]) for each in found]


class _Operation(NamedTuple):
    durations: int
    retries: int
    shared: int
    cached: int


class _Cluster(NamedTuple):
    nodes: int
    joined: int
    granted: int
    refused: int
    round_trips: int
    gossip: int

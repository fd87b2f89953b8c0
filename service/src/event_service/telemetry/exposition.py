"""The metrics' names, and how counts become Prometheus text."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from event_service.telemetry.cells import Cells, Page

# Seconds: fine around a healthy latency, up to beyond the default deadline.
BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
)
# A histogram's cells: one for each bound, one for everything above, and the sum.
SUM = len(BOUNDS) + 1
HISTOGRAM = SUM + 1
_LIMITS = [*map(floatToGoString, BOUNDS), "+Inf"]

# Exemplars of a histogram's buckets, by the histogram's labels.
Exemplars = Callable[[str, tuple[str, ...]], list[Exemplar | None]]

Counted = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Family(NamedTuple):
    kind: type[Counted]
    help: str
    labels: tuple[str, ...] = ()
    # How the workers' values are combined into one.
    merge: Callable[[Iterable[float]], float] = sum


FAMILIES = {
    "http_requests": Family(
        CounterMetricFamily,
        "Requests answered, by route template; status 499 if the client left first.",
        ("method", "route", "status"),
    ),
    "http_request_duration_seconds": Family(
        HistogramMetricFamily,
        "From a request's arrival to the end of its answer.",
        ("method", "route"),
    ),
    "http_requests_in_flight": Family(GaugeMetricFamily, "Requests being answered now."),
    "upstream_requests": Family(
        CounterMetricFamily,
        "Attempts at the upstream that ended, by what came of them.",
        ("operation", "outcome"),
    ),
    "upstream_request_duration_seconds": Family(
        HistogramMetricFamily,
        "Time of an attempt at the upstream, without the wait for a free slot.",
        ("operation",),
    ),
    "upstream_retries": Family(
        CounterMetricFamily, "Attempts that followed a failed one.", ("operation",)
    ),
    "single_flight_shared": Family(
        CounterMetricFamily, "Calls saved by joining one that was under way.", ("operation",)
    ),
    "cache_hits": Family(
        CounterMetricFamily, "Reads answered from what an earlier one brought.", ("operation",)
    ),
    "circuit_breaker_state": Family(
        GaugeMetricFamily,
        "1 for the state that a breaker is in; with several workers, for each that one is in.",
        ("breaker", "state"),
        merge=max,
    ),
    "circuit_breaker_transitions": Family(
        CounterMetricFamily,
        "Changes of a breaker's state.",
        ("breaker", "from_state", "to_state"),
    ),
    "circuit_breaker_calls": Family(
        CounterMetricFamily,
        "Calls by the breaker's verdict: success, failure, ignored or rejected.",
        ("breaker", "outcome"),
    ),
    "rate_limited": Family(CounterMetricFamily, "Requests refused: the client is over its rate."),
    "event_loop_lag_seconds": Family(
        GaugeMetricFamily,
        "How much later than asked for the event loop woke up, at worst in the last 15 seconds.",
        merge=max,
    ),
    "log_lines_dropped": Family(
        CounterMetricFamily, "Log lines lost because nobody took them, or the disk was full."
    ),
    "upstream_calls_in_flight": Family(GaugeMetricFamily, "Upstream calls under way now."),
    "upstream_calls_waiting": Family(
        GaugeMetricFamily, "Upstream calls that wait for a free slot now."
    ),
    "retry_budget_remaining": Family(GaugeMetricFamily, "Retries that may be made now."),
    "http_requests_in_flight_limit": Family(
        GaugeMetricFamily, "Requests to the API that are let in at once; more are refused."
    ),
    "upstream_calls_limit": Family(GaugeMetricFamily, "Upstream calls made at once; more wait."),
    "partial_replies": Family(
        CounterMetricFamily, "Partial replies that lack at least one event, as it failed."
    ),
    "load_shed": Family(CounterMetricFamily, "Requests refused: too many in flight."),
    "cluster_nodes": Family(
        GaugeMetricFamily, "Nodes alive in the cluster, this server's workers included.", merge=max
    ),
    "cluster_joined": Family(
        GaugeMetricFamily,
        "1 while all workers are in the cluster, 0 if one goes on alone.",
        merge=min,
    ),
    "cluster_claims": Family(
        CounterMetricFamily, "Canaries asked for, by what came of it.", ("outcome",)
    ),
    "cluster_round_trips": Family(CounterMetricFamily, "Scripts run in Redis for the circuits."),
    "cluster_gossip_seconds": Family(
        GaugeMetricFamily, "Until a worker heard of its own last decision.", merge=max
    ),
    "outbox_pending": Family(
        GaugeMetricFamily, "Events that wait for their delivery, in all processes.", merge=max
    ),
    "outbox_oldest_seconds": Family(
        GaugeMetricFamily, "Age of the oldest event that waits for its delivery.", merge=max
    ),
    "outbox_accepted": Family(CounterMetricFamily, "Events accepted for a later delivery."),
    "outbox_delivered": Family(CounterMetricFamily, "Events delivered."),
    "outbox_refused": Family(
        CounterMetricFamily, "Events that the upstream refused for good when they were delivered."
    ),
    "outbox_dead": Family(CounterMetricFamily, "Events given up."),
    "outbox_failures": Family(CounterMetricFamily, "Failures of the outbox's database."),
    "outbox_accept_duration_seconds": Family(
        HistogramMetricFamily, "From an event's arrival in the outbox until it was on disk."
    ),
    "outbox_delivery_seconds": Family(
        HistogramMetricFamily, "From an event's acceptance until it was delivered."
    ),
}


def lasts(metric: str) -> bool:
    """Whether a metric is kept after its process has ended. Gauges are not: a gauge of an ended
    process means nothing.
    """
    return FAMILIES[metric].kind is not GaugeMetricFamily


def build_registry(cells: Cells, exemplars: Exemplars, *, version: str) -> CollectorRegistry:
    """Everything to scrape: the counts of all workers, and process information."""
    registry = CollectorRegistry()
    registry.register(_Counted(cells, exemplars))
    registry.register(_Processes(cells))
    registry.register(_Build(version))
    PlatformCollector(registry=registry)
    return registry


class _Counted(Collector):
    def __init__(self, cells: Cells, exemplars: Exemplars) -> None:
        self._cells = cells
        self._exemplars = exemplars

    def collect(self) -> Iterator[Metric]:
        pages = self._cells.pages()
        for name, family in FAMILIES.items():
            metric = family.kind(name, family.help, labels=family.labels)
            for labels, values in _merged(pages, name, family).items():
                if isinstance(metric, HistogramMetricFamily):
                    counts = accumulate(values[:SUM])
                    buckets = [
                        (limit, count, exemplar) if exemplar else (limit, count)
                        for limit, count, exemplar in zip(
                            _LIMITS, counts, self._exemplars(name, labels), strict=True
                        )
                    ]
                    metric.add_metric(labels, buckets, sum_value=values[SUM])
                else:
                    metric.add_metric(labels, values[0])
            yield metric


def _merged(pages: list[Page], name: str, family: Family) -> dict[tuple[str, ...], list[float]]:
    found: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
    for page in pages:
        for row in page.rows:
            if row.metric == name:
                found.setdefault(row.labels, []).append(row.values)
    return {
        labels: [family.merge(cell) for cell in zip(*values, strict=True)]
        for labels, values in found.items()
    }


class _Processes(Collector):
    """The standard process metrics, summed over all workers."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def collect(self) -> Iterator[Metric]:
        pids = [page.pid for page in self._cells.pages() if page.alive]
        families: dict[str, list[Metric]] = {}
        for pid in pids:
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                families.setdefault(metric.name, []).append(metric)
        for name, metrics in families.items():
            merge = min if name == "process_start_time_seconds" else sum
            together = metrics[0]
            sample = together.samples[0]
            value = merge(metric.samples[0].value for metric in metrics)
            together.samples = [sample._replace(value=value)]
            yield together


class _Build(Collector):
    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "event_service_build", "What is running.", value={"version": self._version}
        )

"""Breakers as Prometheus metrics: `REGISTRY.register(BreakerCollector(payments, hosts))`.

Needs the extra `halfopen[prometheus]`. All is read when Prometheus scrapes, so that no call pays
for it. There is no number of successes: count requests where you make them.
"""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from halfopen.breaker import CircuitBreaker
from halfopen.registry import BreakerRegistry
from halfopen.state import State


class BreakerCollector(Collector):
    """The breakers it is given, and those that the registries it is given hold at that moment.

    `circuit_breaker_state{breaker,state}` is 1 for the state that a breaker is in, and 0 for the
    others. `circuit_breaker_calls_total{breaker,outcome}` counts the calls that were a `failure`
    or `rejected`, `circuit_breaker_openings_total{breaker}` how often it opened. Names must differ.
    In the multiprocess mode of prometheus_client, custom collectors such as this show nothing.
    """

    def __init__(self, *watched: CircuitBreaker | BreakerRegistry[Any]) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "circuit_breaker_state", "1 for the state it is in", labels=["breaker", "state"]
        )
        calls = CounterMetricFamily(
            "circuit_breaker_calls", "Calls that did not succeed", labels=["breaker", "outcome"]
        )
        openings = CounterMetricFamily(
            "circuit_breaker_openings", "How often it opened", labels=["breaker"]
        )
        for breaker in self._breakers():
            snapshot = breaker.snapshot()
            for state in State:
                states.add_metric([snapshot.name, state.value], float(state is snapshot.state))
            calls.add_metric([snapshot.name, "failure"], snapshot.failed)
            calls.add_metric([snapshot.name, "rejected"], snapshot.rejected)
            openings.add_metric([snapshot.name], snapshot.opened)
        yield from (states, calls, openings)

    def _breakers(self) -> Iterator[CircuitBreaker]:
        for each in self._watched:
            if isinstance(each, CircuitBreaker):
                yield each
            else:
                yield from each.values()

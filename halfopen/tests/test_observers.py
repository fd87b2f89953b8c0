import logging

import pytest

from halfopen import BreakerRegistry, CircuitBreaker, CircuitOpen, ConsecutiveFailures
from halfopen.logs import log_changes


def test_the_log_tells_an_outage(make, clock, fail, caplog):
    caplog.set_level(logging.INFO)
    breaker = make(trip=ConsecutiveFailures(2))
    leave = log_changes(breaker)

    fail(breaker, 2)
    clock.advance(10)
    hung = breaker.acquire()
    clock.advance(10)
    breaker.acquire().ignore()
    hung.success()
    leave()
    breaker.trip()

    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "circuit upstream: closed -> open (ConsecutiveFailures(n=2))"),
        ("INFO", "circuit upstream: open -> half_open (cooldown elapsed)"),
        ("WARNING", "circuit upstream: a probe is silent"),
        ("INFO", "circuit upstream: half_open -> closed (recovered)"),
    ]
    first = caplog.records[0]
    assert (first.name, first.breaker, first.old, first.new, first.reason) == (
        "halfopen",
        "upstream",
        "closed",
        "open",
        "ConsecutiveFailures(n=2)",
    )
    assert caplog.records[2].breaker == "upstream"


def test_the_log_of_a_registry_tells_of_all_and_in_the_logger_one_wants(caplog):
    hosts = BreakerRegistry(CircuitBreaker)
    leave = log_changes(hosts, logging.getLogger("mine"))

    hosts["a"].trip()
    leave()
    hosts["b"].trip()

    assert [(record.name, record.message) for record in caplog.records] == [
        ("mine", "circuit a: closed -> open (tripped by hand)")
    ]


def test_prometheus_reads_breakers_and_registries_when_it_scrapes(make, fail):
    client = pytest.importorskip("prometheus_client", reason="needs pip install prometheus-client")
    from halfopen.prometheus import BreakerCollector  # noqa: PLC0415 - needs the client

    breaker, hosts = make(trip=ConsecutiveFailures(2)), BreakerRegistry(CircuitBreaker)
    registry = client.CollectorRegistry()
    registry.register(BreakerCollector(breaker, hosts))
    hosts["late"]
    fail(breaker, 2)
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            breaker.acquire()

    def value(metric, **labels):
        return registry.get_sample_value(metric, labels)

    states = ["closed", "open", "half_open", "isolated"]
    assert [
        value("circuit_breaker_state", breaker="upstream", state=state) for state in states
    ] == [0, 1, 0, 0]
    assert value("circuit_breaker_state", breaker="late", state="closed") == 1
    assert value("circuit_breaker_calls_total", breaker="upstream", outcome="failure") == 2
    assert value("circuit_breaker_calls_total", breaker="upstream", outcome="rejected") == 3
    assert value("circuit_breaker_openings_total", breaker="upstream") == 1

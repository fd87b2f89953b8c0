from event_service.signals import RateExceeded, RequestStarted, Signals
from event_service.telemetry.cells import Cells, Pages
from event_service.telemetry.exposition import lasts
from event_service.telemetry.metrics import Metrics
from halfopen import CircuitBreaker


def exposed(metrics: Metrics) -> list[str]:
    return metrics.expose("")[0].decode().splitlines()


def test_gauges_of_an_ended_worker_are_reset():
    pages = Pages(2, lasting=lasts)
    one, other = (Metrics(Cells(pages, place), version="1") for place in range(2))
    breakers = [CircuitBreaker("addEvent") for _ in range(2)]
    for metrics, breaker in zip((one, other), breakers, strict=True):
        signals = Signals()
        metrics.listen(signals)
        metrics.watch(breaker)
        signals.emit(RequestStarted("GET"))
        signals.emit(RateExceeded())
    breakers[1].trip()

    both = exposed(one)
    assert "http_requests_in_flight 2.0" in both
    assert "rate_limited_total 2.0" in both
    assert 'circuit_breaker_state{breaker="addEvent",state="open"} 1.0' in both
    assert 'circuit_breaker_state{breaker="addEvent",state="closed"} 1.0' in both

    pages.fold(1)
    left = exposed(one)
    assert "http_requests_in_flight 1.0" in left
    assert "rate_limited_total 2.0" in left
    assert 'circuit_breaker_state{breaker="addEvent",state="open"} 0.0' in left
    assert 'circuit_breaker_state{breaker="addEvent",state="closed"} 1.0' in left

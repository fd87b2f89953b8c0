"""Memory and start: what a server takes before and while it works."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.contenders import Server
from benchmarks.load import Sample, quantile
from benchmarks.processes import Process
from benchmarks.scenario import Figure, Figures, Site
from benchmarks.throughput import by_user, expect_all

SETTLE = 1.0  # seconds after the start before idle memory is read


class Peak:
    """The most memory a process had while this ran, in bytes; looked at ten times a second."""

    def __init__(self, process: Process):
        self.process = process
        self.memory = 0
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.memory = max(self.memory, self.process.memory())


def in_flight(site: Site, server: Server) -> Figures:
    """Memory while a new process takes its first load; the 99th percentile once it is warm."""
    time.sleep(SETTLE)
    idle = server.process.memory()
    peak = Peak(server.process)
    with peak.watching():
        _hold(site, server)
    latencies = [sample.latency_ms for sample in _hold(site, server)]
    return {
        "in-flight-memory": Figure((peak.memory - idle) / site.plan.in_flight / 1000),
        "in-flight-p99": Figure(quantile(latencies, 0.99) / 1000),
    }


def _hold(site: Site, server: Server) -> list[Sample]:
    samples = site.open(
        server, site.plan.in_flight_seconds, by_user(1), in_flight=site.plan.in_flight
    )
    expect_all(samples, 200)
    return samples


def start(_: Site, server: Server) -> Figures:
    time.sleep(SETTLE)
    return {
        "cold-start": Figure(server.start_seconds),
        "idle-memory": Figure(server.process.memory() / 1e6),
    }

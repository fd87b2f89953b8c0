"""An upstream that dies under constant load and comes back."""

import time

from benchmarks import data
from benchmarks.contenders import Server
from benchmarks.load import Open, quantile
from benchmarks.scenario import Figure, Figures, Site

REQUESTS = [
    {"method": "GET", "path": "/api/getEventsByUserId/{key}-0"},
    {"method": "POST", "path": "/api/addEvent", "body": data.NEW_EVENT},
]


def dead_upstream(site: Site, server: Server) -> Figures:
    """One upstream call a request while all is well; dead means 503 to every call."""
    plan = site.plan
    site.upstream.ask("GET", "/control/calls")  # forgets those of the checks
    observed = plan.cooldown + 3
    seconds = plan.normal_seconds + plan.dead_seconds + observed
    with Open(server.port, seconds, REQUESTS, rate=plan.dead_rate) as load:
        time.sleep(plan.normal_seconds + 0.5)  # half a second for the generator to start
        site.upstream.ask("POST", "/control/down")
        died = time.monotonic()
        time.sleep(plan.dead_seconds)
        site.upstream.ask("POST", "/control/up")
        returned = time.monotonic()
        samples = load.samples()
    server.logged += sum(sample.status > 0 for sample in samples)
    calls = [call for call in site.upstream.ask("GET", "/control/calls") if died < call < returned]
    opened = died + plan.dead_seconds / 2  # by then every breaker has had time to open
    refusals = [
        sample.latency_ms
        for sample in samples
        if opened < sample.due < returned and sample.status != 200
    ]
    late = [sample.due for sample in samples if sample.due > returned and sample.status != 200]
    recovery = max(late) - returned if late else 0.0
    if recovery > observed - 1:
        recovery = float("inf")  # it still failed when we stopped looking
    return {
        "dead-calls": Figure(len(calls) / (plan.dead_rate * plan.dead_seconds)),
        "dead-busiest": Figure(_busiest_second(calls) / plan.dead_rate),
        "dead-p99": Figure(quantile(refusals, 0.99)),
        "dead-recovery": Figure(recovery),
    }


def _busiest_second(calls: list[float]) -> int:
    """The most calls in any one second."""
    first, most = 0, 0
    for last, call in enumerate(calls):
        while call - calls[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most

"""Under constant load an upstream dies and comes back, or the server itself stalls."""

import math
import time
from collections import Counter

from benchmarks import data
from benchmarks.contenders import Server
from benchmarks.load import Open, Sample, quantile
from benchmarks.scenario import Figure, Figures, Site, fresh_key
from benchmarks.throughput import by_user, rate

STALL = 0.7  # seconds
LATE_MS = 100.0
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
    recovery = _recovery(late, since=returned, observed=observed)
    return {
        "dead-calls": Figure(len(calls) / (plan.dead_rate * plan.dead_seconds)),
        "dead-busiest": Figure(_busiest_second(calls) / plan.dead_rate),
        "dead-p99": Figure(quantile(refusals, 0.99)),
        "dead-recovery": Figure(recovery),
    }


def stall(site: Site, server: Server) -> Figures:
    """At half of what it serves at most, the server is stopped: a crowd waits when it goes on."""
    seconds = STALL + site.plan.stall_seconds
    capacity = rate(site, server, "distinct", fresh_key(), 0).value
    with Open(server.port, 1 + seconds, by_user(0), rate=capacity / 2) as load:
        time.sleep(1.5)  # half a second for the generator to start
        server.process.suspend(STALL)
        went_on = time.monotonic()
        samples = load.samples()
    server.logged += sum(sample.status > 0 for sample in samples)
    served = sum(sample.status == 200 for sample in samples)
    recovery = _recovery(_mostly_late(samples), since=went_on, observed=site.plan.stall_seconds)
    return {
        "stall-recovery": Figure(recovery),
        "stall-served": Figure(served / len(samples)),
    }


def _mostly_late(samples: list[Sample]) -> list[float]:
    """The ends of the tenths of a second of whose requests most were late or failed."""
    late: Counter[int] = Counter()
    for sample in samples:
        tenth = int(sample.due * 10)
        late[tenth] += 1 if sample.status != 200 or sample.latency_ms > LATE_MS else -1
    return [(tenth + 1) / 10 for tenth, more in late.items() if more > 0]


def _recovery(late: list[float], *, since: float, observed: float) -> float:
    """Seconds until the last that was late; infinite if we stopped looking before."""
    recovery = max([0.0, *(moment - since for moment in late)])
    return recovery if recovery < observed - 1 else math.inf


def _busiest_second(calls: list[float]) -> int:
    """The most calls in any one second."""
    first, most = 0, 0
    for last, call in enumerate(calls):
        while call - calls[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most

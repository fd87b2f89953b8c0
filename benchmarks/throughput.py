"""How many requests a second one core answers, and how soon at a constant rate below that."""

import json
from collections import Counter

from benchmarks import data
from benchmarks.contenders import STRONGEST, Server
from benchmarks.databases import KNOWN_USERS
from benchmarks.load import LoadFailed, Sample, quantile
from benchmarks.scenario import Figure, Figures, Site, fresh_key

HOT_USERS = 1000
SHARE_OF_CAPACITY = 0.7
ADD_EVENT = ("post", "/api/addEvent", json.dumps(data.NEW_EVENT))
ADD_LATER = ("post-async", "/api/addEvent", json.dumps(data.NEW_EVENT))


def by_user(events: int) -> list[dict]:
    return [{"method": "GET", "path": f"/api/getEventsByUserId/{{key}}-{events}"}]


def rate(site: Site, server: Server, *kind: object, seconds: int = 0) -> Figure:
    found, busy = site.closed(server, *kind, seconds=seconds)
    if found.refused:
        raise LoadFailed(f"{found.refused} of {found.requests} requests were refused")
    return Figure(found.rate, busy)


def warm(events: int):
    def run(site: Site, server: Server) -> None:
        rate(site, server, "distinct", fresh_key(), events, seconds=site.plan.warm_seconds)

    return run


def distinct_and_hot(name: str, events: int):
    def measure(site: Site, server: Server) -> Figures:
        return {
            f"{name}-distinct": rate(site, server, "distinct", fresh_key(), events),
            f"{name}-hot": rate(site, server, "hot", HOT_USERS, events),
        }

    return measure


def warm_known(site: Site, server: Server) -> None:
    rate(site, server, "known", KNOWN_USERS, 10, seconds=site.plan.warm_seconds)


def known(key: str):
    def measure(site: Site, server: Server) -> Figures:
        return {key: rate(site, server, "known", KNOWN_USERS, 10)}

    return measure


def events(key: str, *kind: object):
    """New events, and the 99th percentile of their replies."""

    def measure(site: Site, server: Server) -> Figures:
        found, busy = site.closed(server, *kind)
        if found.refused:
            raise LoadFailed(f"{found.refused} of {found.requests} requests were refused")
        return {key: Figure(found.rate, busy), f"{key}-p99": Figure(found.p99_ms)}

    return measure


def warm_events(*kind: object):
    def run(site: Site, server: Server) -> None:
        site.closed(server, *kind, seconds=site.plan.warm_seconds)

    return run


def find_capacity(site: Site, server: Server) -> None:
    warm(events=0)(site, server)
    site.capacity[server.contender.name] = rate(site, server, "distinct", fresh_key(), 0).value


def open_load(site: Site, server: Server) -> Figures:
    """At a share of the strongest other's capacity, the same for all."""
    capacity = site.capacity.get(STRONGEST) or site.capacity[server.contender.name]
    samples = site.open(
        server, site.plan.open_seconds, by_user(0), rate=capacity * SHARE_OF_CAPACITY
    )
    expect_all(samples, 200)
    latencies = [sample.latency_ms for sample in samples]
    return {
        "open-p50": Figure(quantile(latencies, 0.5)),
        "open-p99": Figure(quantile(latencies, 0.99)),
        "open-p999": Figure(quantile(latencies, 0.999)),
    }


def warm_refused(site: Site, server: Server) -> None:
    refused(site, server, seconds=site.plan.warm_seconds)


def refused(site: Site, server: Server, seconds: int = 0) -> Figure:
    found, busy = site.closed(server, *ADD_EVENT, seconds=seconds)
    if found.refused != found.requests:
        raise LoadFailed(f"only {found.refused} of {found.requests} requests were refused")
    return Figure(found.rate, busy)


def open_breaker(site: Site, server: Server) -> Figures:
    empty = rate(site, server, "path", "/livez")
    refusals = refused(site, server)
    samples = site.open(
        server,
        site.plan.open_seconds,
        [{"method": "POST", "path": "/api/addEvent", "body": data.NEW_EVENT}],
        rate=refusals.value / 2,
    )
    expect_all(samples, 503)
    return {
        "refused": refusals,
        "refused-share": Figure(refusals.value / empty.value),
        "refused-p99": Figure(quantile([sample.latency_ms for sample in samples], 0.99)),
    }


def expect_all(samples: list[Sample], status: int) -> None:
    """Raises LoadFailed with a count of each other status."""
    others = Counter(sample.status for sample in samples if sample.status != status)
    if others:
        found = ", ".join(f"{count} × {other}" for other, count in others.most_common())
        raise LoadFailed(f"of {len(samples)} replies, all to be {status}: {found}")

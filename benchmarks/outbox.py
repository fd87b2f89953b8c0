"""`python -m benchmarks.outbox`: what it costs to accept an event for later, beside adding it now.

One core for the service, another for the load on 64 connections and the upstream. wrk asks;
nginx is the upstream. Each row is the middle one of some rounds.
"""

import argparse
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import data, threads
from benchmarks.__main__ import stop
from benchmarks.contenders import OURS, EventService, Server, Tuning, start
from benchmarks.load import Closed, LoadFailed, closed
from benchmarks.upstreams import Fast

BODY = json.dumps(data.NEW_EVENT)
SYNC = ("post", "/api/addEvent", BODY)
ASYNC = ("post-async", "/api/addEvent", BODY)
LEAST_RATE = 3_000  # accepts/s
MOST_P99 = 50.0  # ms


@dataclass(frozen=True)
class WithOutbox(EventService):
    """Production's defaults, with room for all that a round accepts."""

    outbox: str = ""

    def environment(self, port: int, upstream: str, tuning: Tuning) -> dict[str, str]:
        outbox = {
            "EVENT_SERVICE_OUTBOX_URL": f"sqlite:///{self.outbox}",
            "EVENT_SERVICE_OUTBOX_LIMIT": "10000000",
        }
        return super().environment(port, upstream, tuning) | outbox


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each figure")
    options = parser.parse_args()
    if absent := threads.absent():
        print(*absent, sep="\n", file=sys.stderr)
        return 2
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    usable = sorted(os.sched_getaffinity(0))
    server_core, load_core = usable[0], usable[-1]
    os.sched_setaffinity(0, {load_core})
    rows = {
        "added now": (False, SYNC),
        "accepted for later, upstream down": (True, ASYNC),
        "accepted and delivered meanwhile": (False, ASYNC),
    }
    print(f"{'64 connections, one core':<36}    req/s   p50 ms   p99 ms  delivered/s")
    met = True
    for title, (down, kind) in rows.items():
        found = [
            _measure(kind, server_core, load_core, options.seconds, down=down)
            for _ in range(options.rounds)
        ]
        rate, p50, p99, delivered = (median(values) for values in zip(*found, strict=True))
        print(f"{title:<36} {rate:>8.0f} {p50:>8.1f} {p99:>8.1f} {delivered:>12.0f}")
        if down:
            met = rate >= LEAST_RATE and p99 <= MOST_P99
    print(f"goal: ≥ {LEAST_RATE} accepts/s, p99 ≤ {MOST_P99:g} ms: {'met' if met else 'missed'}")
    return not met


def _measure(
    kind: tuple[str, ...], server_core: int, load_core: int, seconds: int, *, down: bool
) -> tuple[float, float, float, float]:
    with TemporaryDirectory(prefix="event-service-benchmark-") as name:
        ours = WithOutbox(
            OURS.name, OURS.title, OURS.command, OURS.needs, OURS.install, f"{name}/outbox.db"
        )
        with (
            Fast(refuses_events=down).running(load_core) as upstream,
            start(
                ours, upstream=upstream.url, core=server_core, tuning=Tuning(), folder=Path(name)
            ) as server,
        ):
            closed(server.port, 1, *kind)
            before = _delivered(server)
            found: Closed = closed(server.port, seconds, *kind)
            if found.refused:
                raise LoadFailed(f"{found.refused} of {found.requests} requests were refused")
            delivered = (_delivered(server) - before) / seconds
            return found.rate, found.p50_ms, found.p99_ms, delivered


def _delivered(server: Server) -> float:
    _, text = server.request("GET", "/metrics")
    found = re.search(rb"^outbox_delivered_total (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


if __name__ == "__main__":
    sys.exit(main())

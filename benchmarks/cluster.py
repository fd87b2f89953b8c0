"""`python -m benchmarks.cluster`: what a healthy request costs a node of a cluster.

The service alone and the same joined to a Redis take turns on one core, under the same load. The
Redis, the fast upstream and the load are on another.
"""

import argparse
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.__main__ import stop
from benchmarks.contenders import OURS, EventService, Server, Tuning, start
from benchmarks.load import LoadFailed, closed
from benchmarks.processes import Process, allow_many_files, free_port
from benchmarks.threads import absent, clocks
from benchmarks.throughput import ADD_EVENT
from benchmarks.upstreams import Fast

SECONDS = 1  # of load on each of the two in one round
GOAL = 0.02  # what being in a cluster may cost
LOADS = {
    "GET, a user without events": ("distinct", "u", 0),
    "GET, a user with ten events": ("distinct", "u", 10),
    "POST, a new event": ADD_EVENT,
}


@dataclass(frozen=True)
class _Joined(EventService):
    redis: str = ""

    def environment(self, port: int, upstream: str, tuning: Tuning) -> dict[str, str]:
        settings = super().environment(port, upstream, tuning)
        return settings | {"EVENT_SERVICE_CLUSTER_URL": self.redis}


def main() -> int:
    options = arguments()
    lacking = absent()
    if shutil.which("redis-server") is None:
        lacking.append("not installed: redis-server (apt-get install redis-server)")
    if lacking:
        print(*lacking, sep="\n", file=sys.stderr)
        return 2
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    allow_many_files()
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {usable[-1]})  # and so the load generator, our child
    with servers(usable[0], usable[-1]) as (alone, joined):
        print(f"Joined to alone, the median of {options.rounds} rounds [least to greatest]")
        print(f"{'':<30}{'requests/s':>24}{'CPU time a request':>24}")
        for title, load in LOADS.items():
            rates, times = compare(alone, joined, load, options.rounds)
            print(f"{title:<30}{spread(rates):>24}{spread(times):>24}", flush=True)
    print(f"Goals: {1 - GOAL} and more requests/s, {1 + GOAL} and less CPU time")
    return 0


@contextmanager
def servers(server_core: int, load_core: int) -> Iterator[list[Server]]:
    """The service alone, and one that has joined."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="event-service-benchmark-"))
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        stack.enter_context(Process(command, core=load_core, folder=Path(folder)))
        joined = _Joined(
            "joined",
            "Event Service in a cluster",
            OURS.command,
            OURS.needs,
            (),
            redis=f"redis://127.0.0.1:{port}",
        )
        upstream = stack.enter_context(Fast().running(load_core))
        pair = [
            stack.enter_context(
                start(
                    each,
                    upstream=upstream.url,
                    core=server_core,
                    tuning=Tuning(),
                    folder=Path(folder),
                )
            )
            for each in (OURS, joined)
        ]
        gives_up = time.monotonic() + 10
        while b"\ncluster_joined 1.0" not in pair[1].request("GET", "/metrics")[1]:
            if time.monotonic() > gives_up:
                raise LoadFailed("the service did not join the cluster")
            time.sleep(0.05)
        yield pair


def compare(
    alone: Server, joined: Server, load: tuple, rounds: int
) -> tuple[list[float], list[float]]:
    """For each round the ratio of requests/s and that of CPU time a request."""
    rates, times = [], []
    measure(alone, load)
    measure(joined, load)
    for number in range(rounds):
        pair = (alone, joined) if number % 2 else (joined, alone)
        found = {server.contender.name: measure(server, load) for server in pair}
        (rate, spent), (rate_alone, spent_alone) = (
            found[server.contender.name] for server in (joined, alone)
        )
        rates.append(rate / rate_alone)
        times.append(spent / spent_alone)
    return rates, times


def measure(server: Server, load: tuple) -> tuple[float, float]:
    """Requests/s, and nanoseconds of CPU time a request."""
    before = clocks(server.process).total()
    found = closed(server.port, SECONDS, *load)
    if found.refused:
        raise LoadFailed(f"{found.refused} of {found.requests} requests were refused")
    return found.rate, (clocks(server.process).total() - before) / found.requests


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} [{min(ratios):.3f} to {max(ratios):.3f}]"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=40, metavar="N", help="of each load (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

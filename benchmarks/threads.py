"""The CPU time that the server's threads take for a request, under load and on one core."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.__main__ import missing
from benchmarks.contenders import HERE, OURS, Contender, EventService, Server, Tuning, start
from benchmarks.load import LoadFailed, closed
from benchmarks.processes import Process
from benchmarks.throughput import ADD_EVENT, HOT_USERS
from benchmarks.upstreams import Fast

SECONDS = 1  # of load in one round of a row
KINDS = ("Python", "Granian")
BARE = Contender(
    "bare",
    "the same server and client with an app that does nothing else",
    (sys.executable, HERE / "bare.py"),
    Path(sys.executable),
    (),
)


class _Cached(EventService):
    def environment(self, port: int, upstream: str, tuning: Tuning) -> dict[str, str]:
        return super().environment(port, upstream, tuning) | {"EVENT_SERVICE_CACHE_TTL": "1"}


CACHED = _Cached("cached", "Event Service, CACHE_TTL=1", OURS.command, OURS.needs, ())
# What is asked of whom, and the share of it that is refused.
LOADS = {
    OURS: {
        "GET /livez": (("path", "/livez"), 0),
        "GET, a user without events": (("distinct", "u", 0), 0),
        "GET, a user with ten events": (("distinct", "u", 10), 0),
        "GET, hot users without events": (("hot", HOT_USERS, 0), 0),
        "GET, hot users with ten events": (("hot", HOT_USERS, 10), 0),
        "POST, breaker open": (ADD_EVENT, 1),
    },
    CACHED: {
        "CACHE_TTL=1: hot users without events": (("hot", HOT_USERS, 0), 0),
        "CACHE_TTL=1: hot users with ten events": (("hot", HOT_USERS, 10), 0),
    },
    BARE: {
        "bare: an empty reply": (("path", "/livez"), 0),
        "bare: a call passed on": (("distinct", "u", 0), 0),
        "bare: a body read, an empty reply": (ADD_EVENT, 0),
    },
}


def absent() -> list[str]:
    """Why the threads cannot be measured here, if so."""
    if sys.platform != "linux":
        return ["The time of a thread is read from /proc/<pid>/task: Linux only."]
    return [f"not installed: {line}" for line in missing([OURS])]


def measure(
    rounds: int, *, rows: int, server_core: int, load_core: int
) -> Iterator[tuple[str, list[float]]]:
    """For each load the µs a request of each kind of thread, in the round that took the least.

    `rows`: how many loads of each contender, at most. After the service's own loads come those of
    the bare server and client.
    """
    with (
        TemporaryDirectory(prefix="event-service-benchmark-") as folder,
        Fast(refuses_events=True).running(load_core) as upstream,
    ):
        for contender, loads in LOADS.items():
            with start(
                contender,
                upstream=upstream.url,
                core=server_core,
                tuning=Tuning(),
                folder=Path(folder),
            ) as server:
                for title, (load, refused) in islice(loads.items(), rows):
                    found = [_spent(server, load, refused) for _ in range(rounds)]
                    yield title, min(found, key=sum)


def _spent(server: Server, load: tuple, refused: int) -> list[float]:
    before = clocks(server.process)
    found = closed(server.port, SECONDS, *load)
    after = clocks(server.process)
    if found.refused != refused * found.requests:
        raise LoadFailed(f"{found.refused} of {found.requests} requests were refused")
    return [(after[kind] - before[kind]) / found.requests / 1000 for kind in KINDS]


def clocks(process: Process) -> Counter[str]:
    """Nanoseconds on a core so far, by kind of thread."""
    clocks: Counter[str] = Counter()
    for each in process.tree():
        for thread in Path(f"/proc/{each.pid}/task").iterdir():
            with suppress(OSError):  # it has ended
                clocks[_kind(thread, each.pid)] += int(
                    (thread / "schedstat").read_text().split()[0]
                )
    return clocks


def _kind(thread: Path, pid: int) -> str:
    if thread.name == str(pid):
        return "Python"  # the first thread of its process runs the event loop
    return "Granian"

"""What slow requests in flight cost the server: memory each, and CPU time on one core."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.contenders import Contender, Tuning, start
from benchmarks.footprint import SETTLE, Peak
from benchmarks.load import Open
from benchmarks.throughput import by_user, expect_all
from benchmarks.upstreams import Slow

SECONDS = 2
DELAY = 0.5  # seconds that the upstream takes for the one call of a request


def measure(
    contenders: dict[str, Contender], *, held: int, server_core: int, load_core: int
) -> Iterator[tuple[str, list[float]]]:
    """For each contender, in a new process, the kB above idle and the µs of a request.

    `held`: how many requests are in flight.
    """
    with (
        TemporaryDirectory(prefix="event-service-benchmark-") as folder,
        Slow(user_delay=DELAY).running(load_core) as upstream,
    ):
        for title, contender in contenders.items():
            with start(
                contender,
                upstream=upstream.url,
                core=server_core,
                tuning=Tuning(in_flight=held + 1000),
                folder=Path(folder),
            ) as server:
                time.sleep(SETTLE)
                idle, before = server.process.memory(), server.process.cpu_seconds()
                peak = Peak(server.process)
                with (
                    peak.watching(),
                    Open(server.port, SECONDS, by_user(0), in_flight=held) as load,
                ):
                    samples = load.samples()
                spent = server.process.cpu_seconds() - before
                expect_all(samples, 200)
                yield title, [(peak.memory - idle) / held / 1e3, spent / len(samples) * 1e6]

"""The upstreams of the benchmark, as running processes on the load's core."""

import http.client
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import fast_upstream
from benchmarks.processes import Process, free_port


@dataclass(frozen=True)
class Upstream:
    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Fast:
    """nginx with static replies. `kind` is what its contenders must be able to."""

    refuses_events: bool = False
    kind: str = "http"

    @contextmanager
    def running(self, core: int) -> Iterator[Upstream]:
        with TemporaryDirectory(prefix="event-service-benchmark-") as folder:
            port, refusing_port = free_port(), free_port()
            config = fast_upstream.config(Path(folder), port, refusing_port)
            command = ("nginx", "-p", folder, "-c", config, "-e", "stderr")
            with Process(command, core=core) as process:
                yield ready(process, refusing_port if self.refuses_events else port)


@dataclass(frozen=True)
class Slow:
    """Our own program with exact delays, in seconds; it counts calls and fails on demand."""

    kind = "http"
    user_delay: float = 0.0
    event_delay: float = 0.0
    refuses_events: bool = False

    @contextmanager
    def running(self, core: int) -> Iterator[Upstream]:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.slow_upstream", "--port", str(port)]
        command += ["--user-delay", str(self.user_delay), "--event-delay", str(self.event_delay)]
        with Process(command, core=core, folder=Path(__file__).parents[1]) as process:
            yield ready(process, port)


def ready(process: Process, port: int, path: str = "/getUsers") -> Upstream:
    """Wait until it answers."""
    upstream = Upstream(process, port)
    deadline = time.monotonic() + 10
    while True:
        try:
            upstream.ask("GET", path)
        except OSError:
            if not process.alive or time.monotonic() > deadline:
                words = process.last_words.decode(errors="replace")
                raise RuntimeError(f"the upstream did not start:\n{words}") from None
            time.sleep(0.01)
        else:
            return upstream

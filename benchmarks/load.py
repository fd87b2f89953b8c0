"""Runs the load generators on the load's core and reads their figures."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from benchmarks.processes import Process

HERE = Path(__file__).parent
CONNECTIONS = 64


class LoadFailed(Exception):
    pass


@dataclass
class Busy:
    """How much of a core each part used while a figure was taken, 0 to 1."""

    server: float = 0.0
    others: float = 0.0  # of the server's core, by anything that is not the server
    upstream: float = 0.0
    load: float = 0.0


@contextmanager
def watched(server: Process, server_core: int, upstream: Process) -> Iterator[Busy]:
    def spent() -> tuple[float, float, float, float]:
        return server.cpu_seconds(), _core_seconds(server_core), upstream.cpu_seconds(), _load()

    busy = Busy()
    began, before = time.monotonic(), spent()
    yield busy
    seconds = time.monotonic() - began
    shares = [(late - early) / seconds for early, late in zip(before, spent(), strict=True)]
    busy.server, core, busy.upstream, busy.load = shares
    busy.others = core - busy.server


def _core_seconds(core: int) -> float:
    times = psutil.cpu_times(percpu=True)[core]
    return sum(times) - times.idle - times.iowait


def _load() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that have ended: the load
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Closed:
    """What wrk found: as many requests as the server could answer on 64 connections."""

    rate: float  # requests/s
    requests: int
    refused: int  # status 400 and above
    p50_ms: float
    p99_ms: float


def closed(port: int, seconds: int, *kind: object) -> Closed:
    """Run wrk; `kind` is explained in load.lua. Raises LoadFailed."""
    command = ["wrk", "--threads", "1", "--connections", CONNECTIONS, "--timeout", "20s"]
    command += ["--duration", f"{seconds}s", "--script", HERE / "load.lua"]
    command += [f"http://127.0.0.1:{port}", "--", *kind]
    run = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if run.returncode:
        raise LoadFailed(run.stdout + run.stderr)
    found = json.loads(run.stdout.splitlines()[-1])
    if found["broken"]:
        raise LoadFailed(f"{found['broken']} of {found['requests']} requests got no reply")
    return Closed(
        found["requests"] / found["seconds"],
        found["requests"],
        found["refused"],
        found["p50_ms"],
        found["p99_ms"],
    )


@dataclass(frozen=True)
class Sample:
    due: float  # time.monotonic()
    latency_ms: float
    status: int  # 0: no reply came; -1: the connection broke


@dataclass
class Open:
    """`open_loop.py` at work; `samples()` waits for its end. Use it as a context manager."""

    port: int
    seconds: float
    requests: list[dict]
    rate: float | None = None  # requests/s; or else:
    in_flight: int | None = None  # requests always under way
    _child: subprocess.Popen = field(init=False)

    def __enter__(self) -> Self:
        specification = {
            "port": self.port,
            "seconds": self.seconds,
            "requests": self.requests,
            "connections": self.in_flight or 8000,
        }
        if self.rate:
            specification["rate"] = self.rate
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.open_loop", json.dumps(specification)],
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def samples(self) -> list[Sample]:
        output, errors = self._child.communicate(timeout=self.seconds + 60)
        if self._child.returncode:
            raise LoadFailed(errors.decode())
        found = json.loads(output)
        columns = (found["due"], found["latency_ms"], found["status"])
        return [Sample(*row) for row in zip(*columns, strict=True)]


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of all values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

"""What a scenario consists of, and what it finds when it measures."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.contenders import Server, Tuning
from benchmarks.databases import Database, Running
from benchmarks.goals import Row
from benchmarks.load import Busy, Closed, Open, Sample, closed, watched
from benchmarks.plan import Plan
from benchmarks.upstreams import Fast, Slow, Upstream


@dataclass(frozen=True)
class Figure:
    value: float  # NaN: it could not be taken, for the `reason`
    busy: Busy | None = None
    reason: str = ""


Figures = dict[str, Figure]


@dataclass(frozen=True)
class Site:
    """Where a figure is taken: the plan and the upstream that runs."""

    plan: Plan
    upstream: Upstream | Running
    server_core: int
    capacity: dict[str, float] = field(default_factory=dict)  # requests/s by contender

    def closed(self, server: Server, *kind: object, seconds: int = 0) -> tuple[Closed, Busy]:
        with watched(server.process, self.server_core, self.upstream.process) as busy:
            found = closed(server.port, seconds or self.plan.seconds, *kind)
        if kind[0] != "path":  # that is how health is asked for, which nobody logs
            server.logged += found.requests
        return found, busy

    def open(self, server: Server, seconds: float, requests: list[dict], **shape) -> list[Sample]:
        with Open(server.port, seconds, requests, **shape) as load:
            samples = load.samples()
        server.logged += sum(sample.status > 0 for sample in samples)
        return samples


def fresh_key() -> str:
    """A prefix that makes keys which no run has used before."""
    return f"k{time.monotonic_ns():x}n"


@dataclass(frozen=True)
class Scenario:
    name: str
    rows: tuple[Row, ...]
    upstream: Fast | Slow | Database
    measure: Callable[[Site, Server], Figures]
    warm: Callable[[Site, Server], None] | None = None  # before a server's first figure
    tuning: Tuning = field(default_factory=Tuning)
    fresh: bool = False  # a new process for every figure, and no other beside it
    rounds: int | None = None  # instead of the plan's

"""Runs the scenarios: contenders side by side, in rounds, with their replies checked."""

import http.client
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.checks import WrongReply, check, check_log
from benchmarks.contenders import NGINX, OURS, STRONGEST, Contender, DidNotStart, Server, start
from benchmarks.goals import Row, Values
from benchmarks.load import Busy, LoadFailed, Open, closed, quantile
from benchmarks.plan import Plan
from benchmarks.scenario import Figures, Scenario, Site
from benchmarks.upstreams import Fast, Slow

FAILURES = (DidNotStart, WrongReply, LoadFailed, OSError, http.client.HTTPException)


@dataclass
class Measured:
    """One row's figures, round by round."""

    row: Row
    values: Values = field(default_factory=dict)
    busy: dict[str, list[Busy]] = field(default_factory=dict)


@dataclass
class Results:
    rows: dict[str, Measured] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)


class Bench:
    def __init__(
        self,
        plan: Plan,
        contenders: Sequence[Contender],
        *,
        everyone: bool,
        server_core: int,
        load_core: int,
        say: Callable[[str], None],
    ):
        self.plan = plan
        self.contenders = contenders
        self.everyone = everyone
        self.server_core = server_core
        self.load_core = load_core
        self.say = say
        self.results = Results()

    def measure_limits(self) -> None:
        """What the upstreams and the load can do without a server between them."""
        limits = self.results.limits
        with Fast().running(self.load_core) as upstream:
            alone = closed(upstream.port, self.plan.seconds, "path", "/getUserById/limit-0")
            limits["nginx and wrk alone, both on the load's core, req/s"] = alone.rate
        with Slow(user_delay=0.5).running(self.load_core) as upstream:
            count = self.plan.in_flight
            asked = [{"method": "GET", "path": "/getUserById/{key}-0"}]
            with Open(upstream.port, self.plan.in_flight_seconds, asked, in_flight=count) as load:
                latencies = [sample.latency_ms for sample in load.samples()]
            name = f"the slow upstream and its load alone, {count} calls in flight, p99 in ms"
            limits[name] = quantile(latencies, 0.99)

    def run(self, scenario: Scenario) -> None:
        contenders = self._contenders(scenario)
        rounds = scenario.rounds or self.plan.rounds
        order = [
            contender for number in range(rounds) for contender in _rotated(contenders, number)
        ]
        with scenario.upstream.running(self.load_core) as upstream, ExitStack() as stack:
            site = Site(self.plan, upstream, self.server_core)
            run = _Run(self, scenario, site, stack)
            if scenario.fresh:
                run.each(order, run.measure_fresh)
            else:
                run.each(contenders, run.prepare)
                run.each(order, run.measure)
                run.each(contenders, run.finish)

    def _contenders(self, scenario: Scenario) -> list[Contender]:
        """Everyone who can, or only ours, the strongest, and those that a goal compares it with."""
        able = [each for each in self.contenders if scenario.upstream.kind in each.able]
        if self.everyone:
            return able
        named = {goal.of for row in scenario.rows for goal in row.goals}
        named |= {OURS.name, STRONGEST, NGINX.name}
        return [contender for contender in able if contender.name in named]


class _Run:
    """One scenario at work. A contender that fails leaves the others' figures alone."""

    def __init__(self, bench: Bench, scenario: Scenario, site: Site, stack: ExitStack):
        self.bench = bench
        self.scenario = scenario
        self.site = site
        self.stack = stack
        self.servers: dict[str, Server] = {}
        self.failed: set[str] = set()
        for row in scenario.rows:
            bench.results.rows[row.key] = Measured(row)

    def each(self, contenders: Sequence[Contender], step: Callable[[Contender], None]) -> None:
        for contender in contenders:
            if contender.name in self.failed:
                continue
            try:
                step(contender)
            except FAILURES as error:
                self.failed.add(contender.name)
                self.fail(f"{self.scenario.name}, {contender.title}: {error}")
                for row in self.scenario.rows:
                    self.values(row, contender)[:] = [math.nan]

    def prepare(self, contender: Contender) -> None:
        server = self.start(contender, self.stack)
        self.check(server)
        if self.scenario.warm:
            self.scenario.warm(self.site, server)
        self.servers[contender.name] = server

    def measure(self, contender: Contender) -> None:
        self.note(contender, self.scenario.measure(self.site, self.servers[contender.name]))

    def finish(self, contender: Contender) -> None:
        server = self.servers[contender.name]
        self.check(server)
        server.process.stop()
        if contender.whole:
            check_log(server)

    def measure_fresh(self, contender: Contender) -> None:
        with ExitStack() as stack:
            server = self.start(contender, stack)
            figures = self.scenario.measure(self.site, server)
            self.check(server)
        if contender.whole:
            check_log(server)
        self.note(contender, figures)

    def start(self, contender: Contender, stack: ExitStack) -> Server:
        folder = stack.enter_context(TemporaryDirectory(prefix="event-service-benchmark-"))
        server = start(
            contender,
            upstream=self.site.upstream.url,
            core=self.bench.server_core,
            tuning=self.scenario.tuning,
            folder=Path(folder),
        )
        return stack.enter_context(server)

    def check(self, server: Server) -> None:
        if not server.contender.whole:
            return
        upstream = self.scenario.upstream
        check(server, refuses_events=upstream.refuses_events, lists=upstream.kind != "sql")

    def values(self, row: Row, contender: Contender) -> list[float]:
        return self.bench.results.rows[row.key].values.setdefault(contender.name, [])

    def note(self, contender: Contender, figures: Figures) -> None:
        shown = []
        for row in self.scenario.rows:
            figure = figures[row.key]
            self.values(row, contender).append(figure.value)
            if figure.busy:
                busy = self.bench.results.rows[row.key].busy
                busy.setdefault(contender.name, []).append(figure.busy)
            if figure.reason:
                self.fail(f"{row.title}, {contender.title}: {figure.reason}")
            shown.append(f"{row.key} {figure.value:.4g}")
        self.bench.say(f"  {contender.title}: {', '.join(shown)}")

    def fail(self, words: str) -> None:
        self.bench.results.failures.append(words)
        self.bench.say(f"  failed: {words}")


def _rotated(contenders: list[Contender], number: int) -> list[Contender]:
    """Each round begins with another contender, so that none always follows the same one."""
    first = number % len(contenders)
    return contenders[first:] + contenders[:first]

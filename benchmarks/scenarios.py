"""All that is measured, with the goals."""

from typing import Literal

from benchmarks import failing, footprint, parallel, throughput
from benchmarks.contenders import STRONGEST, Tuning
from benchmarks.databases import Database
from benchmarks.goals import Goal, Row, at_least, at_most
from benchmarks.plan import Plan
from benchmarks.scenario import Scenario
from benchmarks.upstreams import Fast, Slow

UNDICI = STRONGEST
FETCH = "fastify-fetch"
HTTPX = "fastapi-httpx"
SQLALCHEMY = "fastapi-sqlalchemy"


def _rate(key: str, title: str, *goals) -> Row:
    return Row(key, title, "req/s", goals, more_is_better=True, saturates=True)


def scenarios(plan: Plan) -> tuple[Scenario, ...]:
    return _usual(plan) + (_stall(plan) if plan.stall_seconds else ())


def _stall(plan: Plan) -> tuple[Scenario, ...]:
    title = f"stopped for {failing.STALL:g} s at half its capacity"
    return (
        Scenario(
            "stall",
            (
                Row("stall-recovery", f"{title}: until it is well again", "s"),
                Row("stall-served", f"{title}: served", "× all", more_is_better=True),
            ),
            upstream=Fast(),
            measure=failing.stall,
            warm=throughput.warm(events=0),
            rounds=plan.bound_rounds,
        ),
    )


def _database(dialect: Literal["sqlite", "postgresql"], title: str, least: int) -> Scenario:
    return Scenario(
        dialect,
        (_rate(dialect, f"10 events from {title}", at_least(least), at_least(4, SQLALCHEMY)),),
        upstream=Database(dialect),
        measure=throughput.known(dialect),
        warm=throughput.warm_known,
    )


def _events(
    name: str, title: str, kind: tuple[str, ...], upstream: Fast, *goals: Goal, least: int = 0
) -> Scenario:
    return Scenario(
        name,
        (
            _rate(name, title, *([at_least(least)] if least else [])),
            Row(f"{name}-p99", f"{title}: p99", "ms", goals),
        ),
        upstream=upstream,
        measure=throughput.events(name, *kind),
        warm=throughput.warm_events(*kind),
        tuning=Tuning(outbox=upstream.kind == "outbox"),
    )


def _usual(plan: Plan) -> tuple[Scenario, ...]:
    dead = f"upstream dead {plan.dead_seconds:g} s"
    return (
        Scenario(
            "parallel",
            (
                Row("events-10", "10 events of 500 ms", "× delay", (at_most(1.005),), "1.00"),
                Row("events-100", "100 events of 500 ms", "× delay", (at_most(1.01),), "1.00"),
                Row("events-1000", "1 000 events of 500 ms", "× delay", (at_most(1.05),), "1.00"),
            ),
            upstream=Slow(event_delay=parallel.DELAY),
            measure=parallel.measure,
            rounds=plan.bound_rounds,
        ),
        Scenario(
            "pass-through",
            (
                _rate(
                    "pass-distinct",
                    "pass-through, distinct keys",
                    at_least(1.3, UNDICI),
                    at_least(4, FETCH),
                    at_least(20, HTTPX),
                ),
                _rate("pass-hot", "pass-through, hot keys", at_least(2, UNDICI)),
            ),
            upstream=Fast(kind="pass-through"),
            measure=throughput.distinct_and_hot("pass", events=0),
            warm=throughput.warm(events=0),
        ),
        Scenario(
            "ten-events",
            (
                _rate("ten-distinct", "10 events, distinct users", at_least(1.3, UNDICI)),
                _rate("ten-hot", "10 events, hot users", at_least(6, UNDICI)),
            ),
            upstream=Fast(),
            measure=throughput.distinct_and_hot("ten", events=10),
            warm=throughput.warm(events=10),
        ),
        _database("sqlite", "SQLite", 10_000),
        _database("postgresql", "PostgreSQL", 5_000),
        _events("add-event", "new events, added now", throughput.ADD_EVENT, Fast()),
        _events(
            "accept",
            "new events for later, upstream down",
            throughput.ADD_LATER,
            Fast(refuses_events=True, kind="outbox"),
            at_most(50),
            least=3_000,
        ),
        _events(
            "accept-deliver",
            "new events for later, delivered meanwhile",
            throughput.ADD_LATER,
            Fast(kind="outbox"),
            at_most(50),
            least=3_000,
        ),
        Scenario(
            "open-breaker",
            (
                _rate("refused", "open breaker: refusals"),
                Row(
                    "refused-share",
                    "open breaker: refusals to empty replies",
                    "×",
                    (at_least(0.6),),
                    "1.00",
                    more_is_better=True,
                ),
                Row("refused-p99", "open breaker: p99 at half that rate", "ms"),
            ),
            upstream=Fast(refuses_events=True),
            measure=throughput.open_breaker,
            warm=throughput.warm_refused,
            rounds=plan.bound_rounds,
        ),
        Scenario(
            "in-flight",
            (
                Row(
                    "in-flight-memory",
                    f"{plan.in_flight} in flight: memory each",
                    "kB",
                    (at_most(40),),
                ),
                Row(
                    "in-flight-p99",
                    f"{plan.in_flight} in flight: p99",
                    "s",
                    (at_most(1.2),),
                    "1.00",
                ),
            ),
            upstream=Slow(user_delay=0.5, event_delay=0.5),
            measure=footprint.in_flight,
            tuning=Tuning(in_flight=plan.in_flight + 1000),
            fresh=True,
            rounds=plan.bound_rounds,
        ),
        Scenario(
            "open-load",
            (
                Row("open-p50", "70 % of Fastify + undici's capacity: p50", "ms"),
                Row(
                    "open-p99",
                    "70 % of Fastify + undici's capacity: p99",
                    "ms",
                    (at_most(1, UNDICI),),
                ),
                Row("open-p999", "70 % of Fastify + undici's capacity: p99.9", "ms"),
            ),
            upstream=Fast(),
            measure=throughput.open_load,
            warm=throughput.find_capacity,
        ),
        Scenario(
            "dead-upstream",
            (
                Row("dead-calls", f"{dead}: calls to it", "× normal"),
                Row("dead-busiest", f"{dead}: in the busiest second", "× normal", (at_most(1.1),)),
                Row("dead-p99", f"{dead}: p99 of refusals", "ms", (at_most(5),)),
                Row(
                    "dead-recovery",
                    f"{dead}: from its return to full service",
                    "s",
                    (at_most(plan.cooldown + 1),),
                ),
            ),
            upstream=Slow(),
            measure=failing.dead_upstream,
            tuning=Tuning(cooldown=plan.cooldown),
            rounds=1,
        ),
        Scenario(
            "start",
            (
                Row("cold-start", "cold start to first 200", "s", (at_most(0.35),)),
                Row("idle-memory", "idle memory", "MB", (at_most(60),)),
            ),
            upstream=Fast(),
            measure=footprint.start,
            fresh=True,
            rounds=plan.bound_rounds,
        ),
    )

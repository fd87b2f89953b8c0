"""How long and how often everything is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Times in seconds."""

    name: str
    rounds: int  # where a goal is a ratio to another contender
    bound_rounds: int  # where a goal is a bound
    lookups: int  # of one user each, where the time of one look-up is the figure
    warm_seconds: int  # of load before a server's first figure: Node.js compiles what it runs often
    seconds: int  # of load for each throughput figure
    open_seconds: int  # of load for each latency figure
    stall_seconds: float  # of load after a server was stopped; 0: it is not stopped
    in_flight: int
    in_flight_seconds: int
    normal_seconds: float  # the upstream is well, then dead, then well again
    dead_seconds: float
    cooldown: float
    dead_rate: int  # requests/s
    all_contenders: bool  # otherwise only ours and those that a goal compares it with


FULL = Plan(
    name="full",
    rounds=3,
    bound_rounds=2,
    lookups=7,
    warm_seconds=3,
    seconds=4,
    open_seconds=8,
    stall_seconds=8.0,
    in_flight=5000,
    in_flight_seconds=4,
    normal_seconds=5.0,
    dead_seconds=60.0,
    cooldown=10.0,
    dead_rate=200,
    all_contenders=True,
)
QUICK = Plan(
    name="quick",
    rounds=2,
    bound_rounds=1,
    lookups=2,
    warm_seconds=1,
    seconds=1,
    open_seconds=1,
    stall_seconds=0.0,
    in_flight=5000,
    in_flight_seconds=1,
    normal_seconds=1.0,
    dead_seconds=3.0,
    cooldown=2.0,
    dead_rate=400,
    all_contenders=False,
)
SMOKE = Plan(
    name="smoke",
    rounds=1,
    bound_rounds=1,
    lookups=1,
    warm_seconds=1,
    seconds=1,
    open_seconds=1,
    stall_seconds=1.0,
    in_flight=50,
    in_flight_seconds=1,
    normal_seconds=0.5,
    dead_seconds=1.0,
    cooldown=0.5,
    dead_rate=50,
    all_contenders=False,
)
PLANS = {plan.name: plan for plan in (FULL, QUICK, SMOKE)}

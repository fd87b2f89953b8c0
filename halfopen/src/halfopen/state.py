from dataclasses import dataclass
from enum import StrEnum

from halfopen.rules import Reading


class State(StrEnum):
    """Where a circuit stands; the values serve as they are in logs and metric labels."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


# Looking a member up in its enumeration takes longer than the rest of a refusal.
CLOSED, OPEN, HALF_OPEN, ISOLATED = State


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker at one instant; times in seconds, totals since it was made.

    There is no total of successes, because a healthy call stores nothing. `rejected` is counted
    without a lock: threads without a GIL may miss some.
    """

    name: str
    state: State
    in_state_for: float
    retry_after: float  # until a call may be let in; 0 when one may be now
    next_cooldown: float  # how long it would stay open if it opened now, before jitter
    rules: tuple[Reading, ...]
    probes: int  # in flight
    probes_allowed: int  # in flight at once
    successes: int  # of probes, since it became half-open
    success_threshold: int
    failed: int  # calls that counted as failures
    rejected: int  # calls refused
    opened: int  # times it opened
    last_failure: BaseException | None  # as in CircuitOpen

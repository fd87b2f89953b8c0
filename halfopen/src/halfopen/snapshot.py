from dataclasses import dataclass

from halfopen.rules import Reading
from halfopen.state import State


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker at one instant; times in seconds.

    Successes are not counted, because a healthy call stores nothing.
    """

    name: str
    state: State
    in_state_for: float  # since the state began
    retry_after: float  # until a call may be let in; 0.0 when one may be now
    next_cooldown: float  # how long it would stay open if it opened now, before jitter
    rules: tuple[Reading, ...]
    probes: int  # in flight, in the half-open state
    probes_allowed: int  # at once, in the half-open state
    successes: int  # since it became half-open
    success_threshold: int
    failed: int  # calls that counted as failures, ever
    rejected: int  # calls refused, ever
    opened: int  # times it opened, ever
    last_failure: BaseException | None

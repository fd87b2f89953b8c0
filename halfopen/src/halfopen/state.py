"""Where a circuit stands, and the error that says so."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from halfopen.rules import Reading


class State(StrEnum):
    """The values serve as they are in logs and metric labels."""

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
    without waiting for other threads and may miss some of what they refuse at the same instant.
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


class CircuitBreakerError(Exception):
    """The base of the errors that this package raises on its own account."""


_LONGEST_CAUSE = 500


class CircuitOpen(CircuitBreakerError):
    """The circuit refused the call, which never started. Every refusal is a new instance.

    Its arguments are its attributes, in this order; in a test, those at the end may be left out.
    """

    # This makes it cheap to raise and to pickle.
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        return str(self._argument(0, ""))

    @property
    def state(self) -> State:
        """`OPEN`, `HALF_OPEN` (as many probes as may be are in flight) or `ISOLATED`."""
        state = self._argument(1, OPEN)
        return state if isinstance(state, State) else State(state)

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let in: finite, and less with every moment that passes.

        An isolated breaker, whose end nobody knows, answers with its cooldown.
        """
        return float(self._argument(2, 0.0))

    @property
    def last_failure(self) -> BaseException | None:
        """A `stand_in` for the exception that opened the circuit; None if nothing was raised."""
        failure: BaseException | None = self._argument(3, None)
        return failure

    def _argument(self, position: int, default: object) -> Any:
        return self.args[position] if position < len(self.args) else default

    def __str__(self) -> str:
        text = f"circuit {self.name!r} is {self.state}, retry in {self.retry_after:.3g} s"
        if self.last_failure is None:
            return text
        cause = repr(self.last_failure)
        if len(cause) > _LONGEST_CAUSE:  # maybe another refusal, which quotes one itself
            cause = cause[:_LONGEST_CAUSE] + "..."
        return f"{text}; last failure: {cause}"

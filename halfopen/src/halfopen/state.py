"""Where a circuit stands, and the error that says so."""

from dataclasses import dataclass
from enum import StrEnum
from traceback import format_exception_only

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


class CircuitBreakerError(Exception):
    """The base of the errors that this package raises on its own account."""


class CircuitOpen(CircuitBreakerError):
    """The circuit refused the call, which never started. Every refusal is a new instance."""

    # The attributes are the arguments, which makes it cheap to raise and to pickle.
    args: tuple[str, State, float, BaseException | None]

    @property
    def name(self) -> str:
        return self.args[0]

    @property
    def state(self) -> State:
        """`OPEN`, `HALF_OPEN` (as many probes as may be are in flight) or `ISOLATED`."""
        return self.args[1]

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let in: finite, and less with every moment that passes.

        An isolated breaker, whose end nobody knows, answers with its cooldown.
        """
        return self.args[2]

    @property
    def last_failure(self) -> BaseException | None:
        """A `stand_in` for the exception that opened the circuit; None if nothing was raised."""
        return self.args[3]

    def __str__(self) -> str:
        cause = "" if self.last_failure is None else f"; last failure: {self.last_failure!r}"
        return f"circuit {self.name!r} is {self.state}, retry in {self.retry_after:.3g} s{cause}"


_PLAIN = (str, bytes, int, float, bool, type(None))


def stand_in(exc: BaseException) -> BaseException:
    """An exception of the same type and text that keeps nothing alive that the call touched.

    It has no traceback, cause, context or attributes, and texts for arguments that are no plain
    values. Where a type cannot be built like that, a `CircuitBreakerError` quotes it.
    """
    try:
        plain = (arg if type(arg) in _PLAIN else str(arg) for arg in exc.args)
        copy = type(exc).__new__(type(exc), *plain)
        str(copy), repr(copy)
    except Exception:  # noqa: BLE001 - the exception's own code ran, whatever it does
        return CircuitBreakerError("".join(format_exception_only(exc)).strip())
    return copy

from traceback import format_exception_only
from typing import cast

from halfopen.state import State


class CircuitBreakerError(Exception):
    """The base of the errors that this package raises on its own account."""


class CircuitOpen(CircuitBreakerError):
    """The circuit refused the call, which never started. Every refusal is a new instance.

    Its attributes are its arguments, in this order, which makes it cheap to raise and to pickle.
    """

    @property
    def name(self) -> str:
        return cast("str", self.args[0])

    @property
    def state(self) -> State:
        """`OPEN`, `HALF_OPEN` (as many probes as may be are in flight) or `ISOLATED`."""
        return cast("State", self.args[1])

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let in: finite, and less with every moment that passes.

        An isolated breaker, whose end nobody knows, answers with its cooldown.
        """
        return cast("float", self.args[2])

    @property
    def last_failure(self) -> BaseException | None:
        """A `stand_in` for the exception that opened the circuit.

        None if there was none: a bad result, a slow call or `trip` opened it.
        """
        return cast("BaseException | None", self.args[3])

    def __str__(self) -> str:
        cause = "" if self.last_failure is None else f"; last failure: {self.last_failure!r}"
        return f"circuit {self.name!r} is {self.state}, retry in {self.retry_after:.3g} s{cause}"


_PLAIN = (str, bytes, int, float, bool, type(None))


def stand_in(exc: BaseException) -> BaseException:
    """An exception of the same type and text, without traceback, cause, context or attributes.

    It may be kept while a circuit is open without keeping alive what the call touched: arguments
    that are not plain values are replaced by their texts. Where a type cannot be built like that, a
    `CircuitBreakerError` quotes it.
    """
    try:
        plain = (arg if type(arg) in _PLAIN else str(arg) for arg in exc.args)
        copy = type(exc).__new__(type(exc), *plain)
        str(copy), repr(copy)
    except Exception:  # noqa: BLE001 - the exception's own code ran, whatever it does
        return CircuitBreakerError("".join(format_exception_only(exc)).strip())
    return copy

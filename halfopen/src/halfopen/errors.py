from typing import cast

from halfopen.state import State


class CircuitBreakerError(Exception):
    """The base of the errors that this package raises on its own account."""


class CircuitOpen(CircuitBreakerError):
    """The circuit refused the call, which never started. Every refusal is a new instance.

    Its four attributes are its arguments, in this order: that makes it cheap to raise, and lets it
    be pickled.
    """

    @property
    def name(self) -> str:
        return cast("str", self.args[0])

    @property
    def state(self) -> State:
        """Why: `OPEN`, `HALF_OPEN` (all probes are in flight) or `ISOLATED`."""
        return cast("State", self.args[1])

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let in: finite, and less with every moment that passes.

        An isolated breaker, whose end nobody knows, answers with its cooldown.
        """
        return cast("float", self.args[2])

    @property
    def last_failure(self) -> BaseException | None:
        """The failure that last opened the circuit, as a `stand_in`.

        None if it was a returned value, a slow call, or `trip`.
        """
        return cast("BaseException | None", self.args[3])

    def __str__(self) -> str:
        cause = "" if self.last_failure is None else f"; last failure: {self.last_failure!r}"
        return f"circuit {self.name!r} is {self.state}, retry in {self.retry_after:.3g} s{cause}"


_PLAIN = (str, bytes, int, float, bool, type(None))


def stand_in(exc: BaseException) -> BaseException:
    """An exception of the same type and text, without traceback, cause, context and attributes.

    It can be kept for as long as a circuit stays open without keeping alive what the call touched.
    Arguments of the exception that are not plain values are kept as their texts. A type that cannot
    be built this way is replaced by a `CircuitBreakerError` that quotes it.
    """
    try:
        copy = type(exc).__new__(
            type(exc), *(arg if type(arg) in _PLAIN else str(arg) for arg in exc.args)
        )
        str(copy)
    except Exception:
        return CircuitBreakerError(f"{type(exc).__qualname__}: {exc}")
    return copy

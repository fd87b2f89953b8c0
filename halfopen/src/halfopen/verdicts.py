"""What an outcome counts as: a failure, a success, or neither."""

import logging
import pickle
from collections.abc import Callable, Iterator
from traceback import format_exception_only
from typing import Any, TypeAlias

from halfopen import checks
from halfopen.state import CircuitBreakerError, CircuitOpen

logger = logging.getLogger("halfopen")

Predicate: TypeAlias = Callable[[Any], object]
ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class Judge:
    """Says whether an outcome is a failure (True), a success (False) or neutral (None).

    A group of exceptions counts as its leaves do: as a failure if one of them does, as neutral if
    all of them do. Only a group type that is named itself is looked at as a whole, also in another
    group. The refusal of another breaker is neutral unless `failure_on` names it, because nothing
    was called.
    """

    def __init__(
        self,
        failure_on: ErrorTypes | Callable[[Exception], object],
        ignore: ErrorTypes,
        failure_result: Predicate | None,
    ) -> None:
        self._failing: tuple[type[BaseException], ...] = ()
        if isinstance(failure_on, type | tuple):
            self._failing = checks.exception_types("failure_on", failure_on)
            self._fails: Predicate = self._is_named
            for kind in self._failing:
                _check_that_it_can_count(kind)
        else:
            checks.function("failure_on", failure_on)
            self._fails = failure_on
        self._ignored = checks.exception_types("ignore", ignore)
        if failure_result is not None:
            checks.function("failure_result", failure_result)
        self._failure_result = failure_result
        self._failing_groups = _groups_among(self._failing)
        self._named_groups = (*self._failing_groups, *_groups_among(self._ignored))
        self._counts_refusals = any(issubclass(kind, CircuitBreakerError) for kind in self._failing)
        self.asks_results = failure_result is not None

    def of_error(self, error: BaseException) -> bool | None:
        try:
            if not isinstance(error, BaseExceptionGroup):
                return self._of_one(error)
            verdicts = {self._of_one(part) for part in self._parts(error)}
        except Exception:
            logger.exception("failure_on raised, the call counts as neutral")
            return None
        return True in verdicts or (False if False in verdicts else None)

    def _parts(self, group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
        """The leaves, and groups of a type that is named."""
        left: list[BaseException] = [group]
        while left:
            error = left.pop()
            if isinstance(error, BaseExceptionGroup) and not isinstance(error, self._named_groups):
                left.extend(error.exceptions)
            else:
                yield error

    def _of_one(self, error: BaseException) -> bool | None:
        if isinstance(error, self._ignored):
            return None
        if isinstance(error, self._failing_groups):
            return True
        if not isinstance(error, Exception):
            return None
        if isinstance(error, CircuitOpen) and not self._counts_refusals:
            return None
        return bool(self._fails(error))

    def _is_named(self, error: BaseException) -> bool:
        return isinstance(error, self._failing)

    def of_result(self, result: object) -> bool | None:
        if self._failure_result is None:
            return False
        try:
            return bool(self._failure_result(result))
        except Exception:
            logger.exception("failure_result raised, the call counts as neutral")
            return None


def _groups_among(kinds: tuple[type[BaseException], ...]) -> tuple[type[BaseException], ...]:
    return tuple(kind for kind in kinds if issubclass(kind, BaseExceptionGroup))


def _check_that_it_can_count(kind: type[BaseException]) -> None:
    if issubclass(kind, Exception | BaseExceptionGroup) or kind is BaseException:
        return
    raise TypeError(
        f"failure_on must not hold {kind.__name__}: a call that is cancelled or interrupted is "
        "neutral. If it stands for a time limit, put the limit inside the guarded function, as "
        "asyncio.timeout() does: there it raises TimeoutError, which counts"
    )


_PLAIN = (str, bytes, int, float, bool, type(None))


def stand_in(error: BaseException) -> BaseException:
    """An exception of the same type and text that keeps nothing alive that the call touched.

    It has no traceback, cause, context or attributes, texts for arguments that are no plain
    values, and it survives pickling. Where a type cannot be built like that, a
    `CircuitBreakerError` quotes it. A refusal loses the failure that it quotes itself.
    """
    if isinstance(error, CircuitOpen):
        return CircuitOpen(error.name, error.state, error.retry_after, None)
    try:
        plain = (arg if type(arg) in _PLAIN else str(arg) for arg in error.args)
        copy = type(error).__new__(type(error), *plain)
        repr(copy)
        back = pickle.loads(pickle.dumps(copy))  # noqa: S301 - made a moment ago, right here
        if type(back) is type(error) and str(back) == str(copy) == str(error):
            return copy
    except Exception:  # noqa: BLE001, S110 - the exception's own code ran, whatever it does
        pass
    return CircuitBreakerError("".join(format_exception_only(error)).strip())

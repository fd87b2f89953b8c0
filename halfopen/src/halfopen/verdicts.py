from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

from halfopen import checks
from halfopen.listeners import logger

ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class Verdict(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


SUCCESS, FAILURE, NEUTRAL = Verdict  # looked up faster than in the enumeration


class Judge:
    """Says what an exception or a result counts as.

    An exception is neutral if it is of a type in `ignore`, or no `Exception` at all (cancellation,
    `KeyboardInterrupt`, `GeneratorExit`); else a failure if `failure_on` says so; else a success,
    because what was called works and refused this one call. A predicate that raises is logged, and
    the call is neutral.
    """

    def __init__(
        self,
        failure_on: ErrorTypes | Callable[[Exception], object],
        ignore: ErrorTypes,
        failure_result: Callable[[Any], object] | None,
    ) -> None:
        if isinstance(failure_on, type | tuple):
            _check_types("failure_on", failure_on)
        else:
            checks.function("failure_on", failure_on)
        _check_types("ignore", ignore)
        if failure_result is not None:
            checks.function("failure_result", failure_result)
        self._failure_on = failure_on
        self._ignore = ignore
        self._failure_result = failure_result
        self.hears_results = failure_result is not None

    def of_error(self, exc: BaseException) -> Verdict:
        if not isinstance(exc, Exception) or isinstance(exc, self._ignore):
            return NEUTRAL
        if isinstance(self._failure_on, type | tuple):
            failed = isinstance(exc, self._failure_on)
            return FAILURE if failed else SUCCESS
        return _ask("failure_on", self._failure_on, exc)

    def of_result(self, result: object) -> Verdict:
        if self._failure_result is None:
            return SUCCESS
        return _ask("failure_result", self._failure_result, result)


def _ask(name: str, predicate: Callable[[Any], object], subject: object) -> Verdict:
    try:
        return FAILURE if predicate(subject) else SUCCESS
    except Exception:  # noqa: BLE001 - logged, with its traceback
        logger.exception("%s raised, the call counts as neutral", name)
        return NEUTRAL


def _check_types(name: str, value: Any) -> None:
    for kind in value if isinstance(value, tuple) else (value,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must hold exception types, not {kind!r}")

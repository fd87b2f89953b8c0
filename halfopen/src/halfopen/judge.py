from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

from halfopen import checks
from halfopen.listeners import logger

ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Judge:
    """Says what an exception or a result counts as.

    An exception is neutral if it is of a type in `ignore`, or no `Exception` at all (cancellation,
    `KeyboardInterrupt`, `GeneratorExit`); else a failure if `failure_on` says so; else a success:
    what was called works, it refused this one call. A predicate that raises is logged, and the call
    is neutral.
    """

    __slots__ = ("_failure_on", "_failure_result", "_ignore")

    def __init__(
        self,
        failure_on: ErrorTypes | Callable[[Exception], object],
        ignore: ErrorTypes,
        failure_result: Callable[[Any], object] | None,
    ) -> None:
        if not _are_types(failure_on) and (
            isinstance(failure_on, type | tuple) or not callable(failure_on)
        ):
            raise TypeError(f"failure_on must be exception types or a function, not {failure_on!r}")
        if not _are_types(ignore):
            raise TypeError(f"ignore must be exception types, not {ignore!r}")
        if failure_result is not None:
            checks.function("failure_result", failure_result)
        self._failure_on = failure_on
        self._ignore = ignore
        self._failure_result = failure_result

    @property
    def reads_results(self) -> bool:
        return self._failure_result is not None

    def error(self, exc: BaseException) -> Outcome:
        if not isinstance(exc, Exception) or isinstance(exc, self._ignore):
            return Outcome.NEUTRAL
        if isinstance(self._failure_on, type | tuple):
            failed = isinstance(exc, self._failure_on)
            return Outcome.FAILURE if failed else Outcome.SUCCESS
        return _ask("failure_on", self._failure_on, exc)

    def result(self, result: object) -> Outcome:
        if self._failure_result is None:
            return Outcome.SUCCESS
        return _ask("failure_result", self._failure_result, result)


def _ask(name: str, predicate: Callable[[Any], object], subject: object) -> Outcome:
    try:
        return Outcome.FAILURE if predicate(subject) else Outcome.SUCCESS
    except Exception:
        logger.exception("the %s predicate raised; the call counts as neutral", name)
        return Outcome.NEUTRAL


def _are_types(value: object) -> bool:
    types = value if isinstance(value, tuple) else (value,)
    return all(isinstance(t, type) and issubclass(t, BaseException) for t in types)

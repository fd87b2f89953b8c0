"""Settings are checked where they are given; every error names the one that is wrong."""

import sys
from typing import Any

_LARGEST = sys.float_info.max


def number(name: str, value: float, *, at_least: float = 0.0, at_most: float = _LARGEST) -> None:
    """A finite number in the closed interval."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not at_least <= value <= at_most:  # NaN fails here, too
        limit = "finite" if at_most == _LARGEST else f"at most {at_most}"
        raise ValueError(f"{name} must be at least {at_least} and {limit}, not {value!r}")


def positive(name: str, value: float, *, at_most: float = _LARGEST) -> None:
    number(name, value, at_most=at_most)
    if value == 0:
        raise ValueError(f"{name} must be above 0")


def count(name: str, value: int) -> None:
    """A whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def a_number(name: str, value: object) -> float:
    """Like `number`, for a value of any type."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number(name, value)
    return value


def flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def function(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def exception_types(name: str, value: Any) -> tuple[type[BaseException], ...]:
    kinds = value if isinstance(value, tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must hold exception types, not {kind!r}")
    return kinds

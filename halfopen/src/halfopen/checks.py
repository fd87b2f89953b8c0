"""Every setting is checked where it is given, and the error names it."""

import sys
from typing import Any


def number(name: str, value: float, *, at_least: float, at_most: float) -> None:
    """A number in the closed interval; NaN lies in none."""
    _numeric(name, value)
    if not at_least <= value <= at_most:
        raise ValueError(f"{name} must be from {at_least} to {at_most}, not {value!r}")


def seconds(name: str, value: float) -> None:
    """A length of time: positive and finite."""
    _numeric(name, value)
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def rate(name: str, value: float) -> None:
    """A share of calls: above 0, at most 1."""
    _numeric(name, value)
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {value!r}")


def count(name: str, value: int) -> None:
    """A whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")


def function(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def _numeric(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")

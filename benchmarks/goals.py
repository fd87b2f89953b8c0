"""Where the service must stand, and whether it does."""

import math
import statistics
from dataclasses import dataclass

from benchmarks.contenders import CONTENDERS, OURS

TITLES = {contender.name: contender.title for contender in CONTENDERS}

# One value a round for each contender; NaN where it failed.
Values = dict[str, list[float]]


@dataclass(frozen=True)
class Verdict:
    goal: str
    figure: str
    met: bool | None  # None: nothing to judge by


@dataclass(frozen=True)
class Goal:
    """A bound on our value, or on its ratio to another contender's in the same round."""

    bound: float
    at_least: bool
    of: str | None = None

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.bound:g}" + (f" × {TITLES[self.of]}" if self.of else "")

    def judge(self, values: Values) -> Verdict:
        ours = values.get(OURS.name, [])
        theirs = values.get(self.of, []) if self.of else [1.0] * len(ours)
        if ours and all(map(math.isnan, ours)):
            return Verdict(str(self), "failed", met=False)
        ratios = [a / b for a, b in zip(ours, theirs, strict=False) if b > 0 and not math.isnan(a)]
        if not ratios:
            return Verdict(str(self), "—", met=None)
        middle = statistics.median(ratios)
        met = middle >= self.bound if self.at_least else middle <= self.bound
        figure = f"{middle:.3g}"
        if len(ratios) > 1:
            figure += f" ({min(ratios):.3g}–{max(ratios):.3g})"
        return Verdict(str(self), figure, met)


def at_least(bound: float, of: str | None = None) -> Goal:
    return Goal(bound, at_least=True, of=of)


def at_most(bound: float, of: str | None = None) -> Goal:
    return Goal(bound, at_least=False, of=of)


@dataclass(frozen=True)
class Row:
    """One line of the table: one quantity, measured of every contender."""

    key: str
    title: str
    unit: str
    goals: tuple[Goal, ...] = ()
    limit: str = ""  # the best that any server could do, where that is known
    more_is_better: bool = False
    saturates: bool = False  # the figure is true only if the server's core was busy throughout

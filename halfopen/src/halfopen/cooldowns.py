"""How long a circuit stays open."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from halfopen import checks

logger = logging.getLogger("halfopen")

_MAXIMUM = 300.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Cooldowns that grow while the circuit opens again and again, and start over once it closes.

    The first lasts `initial` seconds, each next one `multiplier` times as long, none longer than
    `maximum` (or `initial`, if that is above the default of `maximum`). Each is then shortened by
    a random share of up to `jitter` (0 to 1), so that many processes do not probe at one instant;
    shortened, because at the ceiling nothing can be added. A jitter of 0.5 is known as equal
    jitter, of 1 as full jitter
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    initial: float
    multiplier: float = 2.0
    maximum: float = _MAXIMUM
    jitter: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("initial", self.initial)
        checks.number("multiplier", self.multiplier, at_least=1.0)
        checks.positive("maximum", self.maximum)
        checks.number("jitter", self.jitter, at_most=1.0)
        if self.maximum < self.initial:
            if self.maximum != _MAXIMUM:
                raise ValueError(
                    f"maximum ({self.maximum}) must not be below initial ({self.initial})"
                )
            object.__setattr__(self, "maximum", self.initial)


CooldownOf: TypeAlias = Callable[[Exception | None], float]


class Cooldown:
    """The setting, whichever of its three kinds it is."""

    def __init__(self, setting: float | Backoff | CooldownOf, random: Callable[[], float]) -> None:
        self._of: CooldownOf | None = None
        self._random = random
        if isinstance(setting, Backoff):
            self._backoff = setting
            return
        if callable(setting):
            self._of = setting
            setting = setting(None)
            checks.positive("what cooldown returns for None", setting)
        checks.positive("cooldown", setting)
        self._backoff = Backoff(setting, multiplier=1.0)

    def usual(self, step: int) -> float:
        """How long the circuit stays open after `step` earlier times, before jitter."""
        backoff = self._backoff
        try:
            return min(backoff.initial * float(backoff.multiplier) ** step, backoff.maximum)
        except OverflowError:
            return backoff.maximum

    def take(self, step: int, error: Exception | None) -> float:
        """How long it stays open now. Runs code of the user's, which may raise what it likes."""
        jitter = self._backoff.jitter
        try:
            if self._of is None:
                return self.usual(step) * (1.0 - jitter * self._random() if jitter else 1.0)
            seconds = self._of(error)
            checks.positive("what cooldown returns", seconds)
        except Exception:
            logger.exception("no cooldown to be had, the circuit opens for the usual one")
            return self.usual(step)
        return seconds

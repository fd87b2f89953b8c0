from dataclasses import dataclass

from halfopen import checks


@dataclass(frozen=True, slots=True)
class Backoff:
    """Cooldowns that grow while the circuit opens again and again, and start over once it closes.

    The first lasts `initial` seconds, each next one `multiplier` times as long, none longer than
    `maximum`. Each is then shortened by a random share of up to `jitter` (0 to 1), so that many
    processes do not probe at one instant; shortened, because at the ceiling nothing can be added.
    A jitter of 0.5 is known as equal jitter, of 1 as full jitter
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    initial: float
    multiplier: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("initial", self.initial)
        checks.number("multiplier", self.multiplier, at_least=1.0)
        checks.positive("maximum", self.maximum)
        checks.number("jitter", self.jitter, at_most=1.0)
        if self.maximum < self.initial:
            raise ValueError(f"maximum ({self.maximum}) must not be below initial ({self.initial})")

    def after(self, cooldown: float) -> float:
        """The cooldown that follows one of `cooldown` seconds, before jitter."""
        return min(cooldown * self.multiplier, self.maximum)

    def jittered(self, cooldown: float, chance: float) -> float:
        """`cooldown` shortened for a `chance` in [0, 1); never to nothing."""
        return cooldown * (1.0 - self.jitter * chance)

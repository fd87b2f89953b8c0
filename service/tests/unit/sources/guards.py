"""Policies for tests, with all that they tell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.signals import AttemptEnded, Signal
from event_service.sources.policy import Policies, ReplyCache
from halfopen import CircuitBreaker, ConsecutiveFailures


@dataclass
class Told:
    """Every signal, in order."""

    signals: list[Signal] = field(default_factory=list)

    def __call__(self, signal: Signal) -> None:
        self.signals.append(signal)

    @property
    def attempts(self) -> list[str]:
        ended = [each for each in self.signals if isinstance(each, AttemptEnded)]
        return [f"{each.operation} {each.outcome}" for each in ended]


def breaker(failures: int = 1000, *, name: str = "op") -> CircuitBreaker:
    return CircuitBreaker(name, trip=ConsecutiveFailures(failures))


def policies(
    *,
    operations: Sequence[str] = ("op",),
    circuit: CircuitBreaker | None = None,
    bulkhead: Bulkhead | None = None,
    budget: RetryBudget | None = None,
    told: Told | None = None,
    attempt_timeout: float = 60.0,
    attempts: int = 1,
    single_flight: bool = True,
    cache: ReplyCache | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Policies:
    return Policies(
        breakers={name: circuit or breaker(name=name) for name in operations},
        bulkhead=bulkhead or Bulkhead(10, max_waiting=10),
        budget=budget or RetryBudget(0.1),
        emit=told or Told(),
        attempt_timeout=attempt_timeout,
        attempts=attempts,
        single_flight=single_flight,
        cache=cache,
        clock=clock,
    )

"""When a closed circuit opens. A rule is a setting and may be shared; its counter belongs to one circuit."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from halfopen import checks
from halfopen.windows import CallWindow, TimeWindow


class Counter(Protocol):
    """The running state of one rule while the circuit is closed."""

    hears_success: bool  # whether a success, right now, would change anything

    def record(self, now: float, duration: float, *, failed: bool) -> bool:
        """Take in a call; does the rule trip?"""
        ...

    def reading(self, now: float) -> "Reading": ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a rule is: it trips when `value` reaches `threshold`.

    `value` and `threshold` are numbers of failures, or shares (0 to 1) for the two rates, which
    trip only once `calls` has reached the rule's `minimum_calls`. `bad` of the `calls` in the
    window failed (or were slow); the counting rules see failures alone, so there both are equal.
    """

    rule: "Rule"
    value: float
    threshold: float
    bad: int
    calls: int


@dataclass(frozen=True, slots=True)
class ConsecutiveFailures:
    """`n` failures without a success in between."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)

    def start(self) -> Counter:
        return _Consecutive(self)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """`n` failures `within` a rolling window of seconds; one exactly that old still counts."""

    n: int
    within: float

    def __post_init__(self) -> None:
        checks.count("n", self.n)
        checks.seconds("within", self.within)

    def start(self) -> Counter:
        return _Recent(self)


@dataclass(frozen=True, slots=True)
class FailureRate:
    """A share of at least `rate` of the calls `over` a window failed, out of `minimum_calls`."""

    rate: float
    over: CallWindow | TimeWindow
    minimum_calls: int

    def __post_init__(self) -> None:
        _check_rate(self)

    def start(self) -> Counter:
        return _Share(self, slower_than=None)


@dataclass(frozen=True, slots=True)
class SlowCallRate:
    """A share of at least `rate` of the calls `over` a window took longer than `slower_than` seconds.

    Whether they failed does not matter; at least `minimum_calls` must lie in the window.
    """

    rate: float
    slower_than: float
    over: CallWindow | TimeWindow
    minimum_calls: int

    def __post_init__(self) -> None:
        checks.seconds("slower_than", self.slower_than)
        _check_rate(self)

    def start(self) -> Counter:
        return _Share(self, slower_than=self.slower_than)


Rule: TypeAlias = ConsecutiveFailures | FailureCount | FailureRate | SlowCallRate


def _check_rate(rule: FailureRate | SlowCallRate) -> None:
    checks.rate("rate", rule.rate)
    checks.count("minimum_calls", rule.minimum_calls)
    if not isinstance(rule.over, CallWindow | TimeWindow):
        raise TypeError(f"over must be a CallWindow or a TimeWindow, not {rule.over!r}")
    if isinstance(rule.over, CallWindow) and rule.minimum_calls > rule.over.n:
        raise ValueError(
            f"minimum_calls ({rule.minimum_calls}) must fit into the window of {rule.over.n} calls"
        )


class _Consecutive:
    __slots__ = ("_count", "_rule", "hears_success")

    def __init__(self, rule: ConsecutiveFailures) -> None:
        self._rule = rule
        self._count = 0
        self.hears_success = False

    def record(self, now: float, duration: float, *, failed: bool) -> bool:  # noqa: ARG002
        self._count = self._count + 1 if failed else 0
        self.hears_success = failed
        return self._count >= self._rule.n

    def reading(self, now: float) -> Reading:  # noqa: ARG002
        return Reading(self._rule, self._count, self._rule.n, self._count, self._count)


class _Recent:
    """A ring of the times of the last `n` failures: the rule trips when the oldest is young enough."""

    __slots__ = ("_rule", "_times", "hears_success")

    def __init__(self, rule: FailureCount) -> None:
        self._rule = rule
        self._times: deque[float] = deque(maxlen=rule.n)
        self.hears_success = False

    def record(self, now: float, duration: float, *, failed: bool) -> bool:  # noqa: ARG002
        if not failed:
            return False
        self._times.append(now)
        return len(self._times) == self._rule.n and self._counts(self._times[0], now)

    def reading(self, now: float) -> Reading:
        count = sum(self._counts(time, now) for time in self._times)
        return Reading(self._rule, count, self._rule.n, count, count)

    def _counts(self, time: float, now: float) -> bool:
        # Added, not subtracted: a clock moved on by exactly `within` must not lose to rounding.
        return time + self._rule.within >= now


class _Share:
    __slots__ = ("_rule", "_slower_than", "_tally", "hears_success")

    def __init__(self, rule: FailureRate | SlowCallRate, *, slower_than: float | None) -> None:
        self._rule = rule
        self._slower_than = slower_than
        self._tally = rule.over.start()
        self.hears_success = True

    def record(self, now: float, duration: float, *, failed: bool) -> bool:
        tally = self._tally
        tally.add(now, bad=failed if self._slower_than is None else duration > self._slower_than)
        # Divided, not multiplied: 7 of 100 is exactly the float 0.07, while 0.07 * 100 is not 7.
        return (
            tally.calls >= self._rule.minimum_calls and tally.bad / tally.calls >= self._rule.rate
        )

    def reading(self, now: float) -> Reading:
        calls, bad = self._tally.at(now)
        return Reading(self._rule, bad / calls if calls else 0.0, self._rule.rate, bad, calls)

"""When a circuit opens. A rule is a setting, to be shared freely; its counter is of one circuit."""

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from halfopen import checks
from halfopen.windows import CallWindow, TimeWindow


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a rule is: it trips when `value` reaches `threshold`.

    Both are numbers of failures, or shares (0 to 1) for the rates, which also wait for `calls` to
    reach their `minimum_calls`. `bad` of the `calls` in the window failed, or were slow; the
    counting rules hear of failures alone, so that both are one number there.
    """

    rule: "ConsecutiveFailures | FailureCount | _Rate"
    value: float
    threshold: float
    bad: int
    calls: int


@dataclass(frozen=True, slots=True)
class ConsecutiveFailures:
    """`n` failures without a success between them."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)

    def start(self) -> "Counter":
        return _Consecutive(self)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """`n` failures within the last `within` seconds; one exactly that old still counts."""

    n: int
    within: float

    def __post_init__(self) -> None:
        checks.count("n", self.n)
        checks.positive("within", self.within)

    def start(self) -> "Counter":
        return _Recent(self)


@dataclass(frozen=True, slots=True)
class _Rate:
    rate: float
    over: CallWindow | TimeWindow = field(kw_only=True)
    minimum_calls: int = field(kw_only=True)

    def __post_init__(self) -> None:
        checks.positive("rate", self.rate, at_most=1.0)
        checks.count("minimum_calls", self.minimum_calls)
        if not isinstance(self.over, CallWindow | TimeWindow):
            raise TypeError(f"over must be a CallWindow or a TimeWindow, not {self.over!r}")
        if isinstance(self.over, CallWindow) and self.minimum_calls > self.over.n:
            raise ValueError(f"minimum_calls must fit into {self.over}, not {self.minimum_calls}")

    def is_bad(self, *, failed: bool, duration: float) -> bool:  # noqa: ARG002 - for SlowCallRate
        return failed

    def start(self) -> "Counter":
        return _Share(self)


@dataclass(frozen=True, slots=True)
class FailureRate(_Rate):
    """At least the share `rate` of the calls `over` a window failed, out of `minimum_calls`."""


@dataclass(frozen=True, slots=True)
class SlowCallRate(_Rate):
    """At least the share `rate` of the calls took longer than `slower_than` seconds.

    Whether they failed does not matter. A half-open circuit takes a slow probe for a failed one.
    """

    slower_than: float = field(kw_only=True)

    def __post_init__(self) -> None:
        _Rate.__post_init__(self)
        checks.positive("slower_than", self.slower_than)

    def is_bad(self, *, failed: bool, duration: float) -> bool:  # noqa: ARG002
        return duration > self.slower_than


Rule: TypeAlias = ConsecutiveFailures | FailureCount | FailureRate | SlowCallRate


class _Consecutive:
    def __init__(self, rule: ConsecutiveFailures) -> None:
        self.rule = rule
        self._failures = 0
        self.hears_successes = False

    def trips(self, _now: float, _duration: float, *, failed: bool) -> bool:
        self._failures = self._failures + 1 if failed else 0
        self.hears_successes = failed
        return self._failures >= self.rule.n

    def reading(self, _now: float) -> Reading:
        return Reading(self.rule, self._failures, self.rule.n, self._failures, self._failures)


class _Recent:
    """The times of the last `n` failures: the rule trips when the first of them is young enough."""

    hears_successes = False

    def __init__(self, rule: FailureCount) -> None:
        self.rule = rule
        self._times: deque[float] = deque(maxlen=rule.n)

    def trips(self, now: float, _duration: float, *, failed: bool) -> bool:
        if not failed:
            return False
        self._times.append(now)
        return len(self._times) == self.rule.n and self._counts(self._times[0], now)

    def reading(self, now: float) -> Reading:
        failures = sum(self._counts(time, now) for time in self._times)
        return Reading(self.rule, failures, self.rule.n, failures, failures)

    def _counts(self, time: float, now: float) -> bool:
        # A sum, not a difference: a clock moved by exactly `within` must not lose to rounding.
        return time + self.rule.within >= now


class _Share:
    hears_successes = True

    def __init__(self, rule: _Rate) -> None:
        self.rule = rule
        self._tally = rule.over.start()

    def trips(self, now: float, duration: float, *, failed: bool) -> bool:
        rule, tally = self.rule, self._tally
        tally.add(now, bad=rule.is_bad(failed=failed, duration=duration))
        # A quotient, not a product: 7 / 100 is the float 0.07, but 0.07 * 100 is more than 7.
        return tally.calls >= rule.minimum_calls and tally.bad / tally.calls >= rule.rate

    def reading(self, now: float) -> Reading:
        calls, bad = self._tally.at(now)
        return Reading(self.rule, bad / calls if calls else 0.0, self.rule.rate, bad, calls)


Counter: TypeAlias = _Consecutive | _Recent | _Share

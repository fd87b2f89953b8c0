"""When a circuit opens, and for how long. Settings are shared freely; counters never."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from halfopen import checks

_BUCKETS = 100


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


class Cooldowns:
    """How long one circuit stays open, time after time."""

    def __init__(self, backoff: Backoff, random: Callable[[], float]) -> None:
        self._backoff = backoff
        self._random = random
        self._chance: float | None = None  # one number for each cooldown, kept until it is used
        self.next = backoff.initial

    def draw(self) -> None:
        if self._backoff.jitter and self._chance is None:
            self._chance = self._random()

    def take(self) -> float:
        lasting = self.next * (1.0 - self._backoff.jitter * (self._chance or 0.0))
        self._chance = None
        self.next = min(self.next * self._backoff.multiplier, self._backoff.maximum)
        return lasting

    def start_over(self) -> None:
        self.next = self._backoff.initial


@dataclass(frozen=True, slots=True)
class CallWindow:
    """The last `n` calls."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The last `seconds`, in memory that does not depend on how many calls they saw.

    Calls less than a hundredth of the window apart may share a bucket, which counts for as long as
    the latest of them does. So every call counts for `seconds`, the last instant included, and for
    at most a hundredth more.
    """

    seconds: float

    def __post_init__(self) -> None:
        checks.positive("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class ConsecutiveFailures:
    """`n` failures without a success between them."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """`n` failures within the last `within` seconds; one exactly that old still counts."""

    n: int
    within: float

    def __post_init__(self) -> None:
        checks.count("n", self.n)
        checks.positive("within", self.within)


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


Rule: TypeAlias = ConsecutiveFailures | FailureCount | FailureRate | SlowCallRate


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a rule is: it trips when `value` reaches `threshold`.

    Both are numbers of failures, or shares (0 to 1) for the rates, which also wait for `calls` to
    reach their `minimum_calls`. `bad` of the `calls` in the window failed, or were slow; the
    counting rules hear of failures alone, so that both are one number there.
    """

    rule: Rule
    value: float
    threshold: float
    bad: int
    calls: int


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


class _LastCalls:
    """A ring of outcomes, a byte each."""

    def __init__(self, n: int) -> None:
        self._outcomes = bytearray(n)
        self._next = self.calls = self.bad = 0

    def add(self, _now: float, *, bad: bool) -> None:
        ring = self._outcomes
        self.bad += bad - ring[self._next]
        ring[self._next] = bad
        self._next = (self._next + 1) % len(ring)
        self.calls = min(self.calls + 1, len(ring))

    def at(self, _now: float) -> tuple[int, int]:
        return self.calls, self.bad


@dataclass(slots=True)
class _Bucket:
    first: float
    last: float
    calls: int = 0
    bad: int = 0


class _LastSeconds:
    def __init__(self, seconds: float) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._seconds = seconds
        self.calls = self.bad = 0

    def add(self, now: float, *, bad: bool) -> None:
        buckets = self._buckets
        while buckets and not self._counts(buckets[0], now):  # a hundred times at most
            old = buckets.popleft()
            self.calls -= old.calls
            self.bad -= old.bad
        if not buckets or now >= buckets[-1].first + self._seconds / _BUCKETS:
            buckets.append(_Bucket(now, now))
        bucket = buckets[-1]
        bucket.last = max(bucket.last, now)  # threads may come with their times out of order
        bucket.calls += 1
        bucket.bad += bad
        self.calls += 1
        self.bad += bad

    def at(self, now: float) -> tuple[int, int]:
        """Calls and bad calls in the window that ends now. Changes nothing."""
        live = [bucket for bucket in self._buckets if self._counts(bucket, now)]
        return sum(bucket.calls for bucket in live), sum(bucket.bad for bucket in live)

    def _counts(self, bucket: _Bucket, now: float) -> bool:
        return bucket.last + self._seconds >= now


class _Share:
    hears_successes = True

    def __init__(self, rule: FailureRate | SlowCallRate) -> None:
        self.rule = rule
        self._slower_than = rule.slower_than if isinstance(rule, SlowCallRate) else None
        self._tally: _LastCalls | _LastSeconds
        if isinstance(rule.over, CallWindow):
            self._tally = _LastCalls(rule.over.n)
        else:
            self._tally = _LastSeconds(rule.over.seconds)

    def trips(self, now: float, duration: float, *, failed: bool) -> bool:
        rule, tally = self.rule, self._tally
        bad = failed if self._slower_than is None else duration > self._slower_than
        tally.add(now, bad=bad)
        # A quotient, not a product: 7 / 100 is the float 0.07, but 0.07 * 100 is more than 7.
        return tally.calls >= rule.minimum_calls and tally.bad / tally.calls >= rule.rate

    def reading(self, now: float) -> Reading:
        calls, bad = self._tally.at(now)
        return Reading(self.rule, bad / calls if calls else 0.0, self.rule.rate, bad, calls)


Counter: TypeAlias = _Consecutive | _Recent | _Share


def start(rule: Rule) -> Counter:
    if isinstance(rule, ConsecutiveFailures):
        return _Consecutive(rule)
    return _Recent(rule) if isinstance(rule, FailureCount) else _Share(rule)

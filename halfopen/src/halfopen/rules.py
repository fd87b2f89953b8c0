"""When a circuit opens. Rules are settings and shared freely; what they have counted is a value.

A counter never changes: `after` returns the one that has also heard of this call. So a call that
is interrupted in the middle, or that another thread overtakes, leaves nothing half counted.

`after` makes its named tuples with `tuple.__new__`: their own constructor is a function in Python,
which takes longer than all the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from halfopen import checks

_BUCKETS = 100


@runtime_checkable
class Rule(Protocol):
    """What `CircuitBreaker(trip=...)` takes. Write your own with one method; `str()` names it.

    A rule with an attribute `slower_than` (seconds) also hears of calls that run for longer than
    that and have not ended: as `hung`, which is 0 for all other rules.
    """

    def start(self) -> "Counter":
        """A counter that has heard of no call.

        Called once for each breaker, which goes back to that counter whenever the circuit closes.
        """


class Counter(Protocol):
    """What a rule has counted since the circuit closed. Times are the breaker's clock, in seconds.

    Its methods return at once, change nothing and may be called more often than there are calls.
    """

    @property
    def hears_successes(self) -> bool:
        """False if a success would change nothing: then healthy calls skip the counter."""

    def after(self, now: float, duration: float, *, failed: bool) -> "Counter":
        """The counter that has also heard of a call that ended `now`, after `duration` seconds."""

    def trips(self, now: float, hung: int) -> bool:
        """Whether the circuit opens. Asked after each call that it hears of."""

    def reading(self, now: float, hung: int) -> "Reading":
        """How far it is, for `Snapshot.rules`."""


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


@dataclass(frozen=True, slots=True)
class ConsecutiveFailures:
    """`n` failures without a success between them."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)

    def start(self) -> Counter:
        return _Row(self, 0)


class _Row(NamedTuple):
    rule: ConsecutiveFailures
    failures: int

    @property
    def hears_successes(self) -> bool:
        return self.failures > 0

    def after(self, _now: float, _duration: float, *, failed: bool) -> Counter:
        return tuple.__new__(_Row, (self.rule, self.failures + 1 if failed else 0))

    def trips(self, _now: float, _hung: int) -> bool:
        return self.failures >= self.rule.n

    def reading(self, _now: float, _hung: int) -> Reading:
        return Reading(self.rule, self.failures, self.rule.n, self.failures, self.failures)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """`n` failures within the last `within` seconds; one exactly that old still counts."""

    n: int
    within: float

    def __post_init__(self) -> None:
        checks.count("n", self.n)
        checks.positive("within", self.within)

    def start(self) -> Counter:
        return _Recent(self)


class _Pile(NamedTuple):
    time: float
    below: "_Pile | None"


class _Recent(NamedTuple):
    """The times of the last `n` failures: the rule trips when the first of them is young enough.

    A queue in two parts: the oldest time is `older[start]`, the latest is on top of `newer`. Once
    there are `n`, `older` is never empty: when it runs out, all of `newer` moves there.
    """

    rule: FailureCount
    older: tuple[float, ...] = ()
    start: int = 0
    newer: _Pile | None = None
    size: int = 0

    @property
    def hears_successes(self) -> bool:
        return False

    def after(self, now: float, _duration: float, *, failed: bool) -> Counter:
        if not failed:
            return self
        n = self.rule.n
        older = self.older
        newer: _Pile | None = tuple.__new__(_Pile, (now, self.newer))
        start = self.start + (self.size == n)
        size = min(self.size + 1, n)
        if size == n and start >= len(older):
            older, start, newer = tuple(reversed(list(_from_the_top(newer)))), 0, None
        return tuple.__new__(_Recent, (self.rule, older, start, newer, size))

    def trips(self, now: float, _hung: int) -> bool:
        return self.size == self.rule.n and self._counts(self.older[self.start], now)

    def reading(self, now: float, _hung: int) -> Reading:
        times = (*self.older[self.start :], *_from_the_top(self.newer))
        failures = sum(self._counts(time, now) for time in times)
        return Reading(self.rule, failures, self.rule.n, failures, failures)

    def _counts(self, time: float, now: float) -> bool:
        # A sum, not a difference: a clock moved by exactly `within` must not lose to rounding.
        return time + self.rule.within >= now


def _from_the_top(pile: _Pile | None) -> Iterator[float]:
    while pile is not None:
        yield pile.time
        pile = pile.below


@dataclass(frozen=True, slots=True)
class CallWindow:
    """The last `n` calls."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)

    def start(self) -> "_Tally":
        return _LastCalls(self.n, 0, 0, 0)


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

    def start(self) -> "_Tally":
        return _LastSeconds(self.seconds, (), None, 0, 0)


class _Tally(Protocol):
    """Calls, and how many of them were bad, in a window."""

    @property
    def calls(self) -> int: ...
    @property
    def bad(self) -> int: ...

    def after(self, now: float, *, bad: bool) -> "_Tally": ...

    def at(self, now: float, hung: int) -> tuple[int, int]:
        """Calls and bad calls in the window that ends now, with `hung` bad ones on top."""


class _LastCalls(NamedTuple):
    """One bit for each call, the latest lowest: a million calls are 125 kB and 0.1 ms a call."""

    n: int
    bits: int
    calls: int
    bad: int

    def after(self, _now: float, *, bad: bool) -> _Tally:
        leaving = self.bits >> (self.n - 1)
        kept = self.bits ^ (leaving << (self.n - 1)) if leaving else self.bits
        return _LastCalls(
            self.n, kept << 1 | bad, min(self.calls + 1, self.n), self.bad + bad - leaving
        )

    def at(self, _now: float, hung: int) -> tuple[int, int]:
        if not hung:
            return self.calls, self.bad
        room = max(self.n - hung, 0)
        ended = (self.bits & ((1 << room) - 1)).bit_count()
        return min(self.calls + hung, self.n), ended + min(hung, self.n)


class _Bucket(NamedTuple):
    first: float
    last: float
    calls: int
    bad: int


class _LastSeconds(NamedTuple):
    """`latest` is apart, because most calls change nothing else."""

    seconds: float
    older: tuple[_Bucket, ...]
    latest: _Bucket | None
    calls: int
    bad: int

    def after(self, now: float, *, bad: bool) -> _Tally:
        seconds, older, latest, calls, bads = self
        if (
            latest is None
            or now >= latest.first + seconds / _BUCKETS
            or (older and older[0].last + seconds < now)
        ):
            older, latest, calls, bads = self._trimmed(now)
        first, last, its_calls, its_bad = latest
        # Threads may come with their times out of order.
        last = now if now > last else last  # noqa: FURB136
        latest = tuple.__new__(_Bucket, (first, last, its_calls + 1, its_bad + bad))
        return tuple.__new__(_LastSeconds, (seconds, older, latest, calls + 1, bads + bad))

    def _trimmed(self, now: float) -> tuple[tuple[_Bucket, ...], _Bucket, int, int]:
        """Without buckets that are too old; `latest` is the bucket for a call that comes `now`."""
        seconds, older, latest, calls, bads = self
        buckets = older if latest is None else (*older, latest)
        gone = 0
        while gone < len(buckets) and not self._counts(buckets[gone], now):  # a hundred at most
            calls -= buckets[gone].calls
            bads -= buckets[gone].bad
            gone += 1
        kept = buckets[gone:]
        if kept and now < kept[-1].first + seconds / _BUCKETS:
            return kept[:-1], kept[-1], calls, bads
        return kept, _Bucket(now, now, 0, 0), calls, bads

    def at(self, now: float, hung: int) -> tuple[int, int]:
        buckets = self.older if self.latest is None else (*self.older, self.latest)
        live = [bucket for bucket in buckets if self._counts(bucket, now)]
        calls, bad = sum(bucket.calls for bucket in live), sum(bucket.bad for bucket in live)
        return calls + hung, bad + hung

    def _counts(self, bucket: _Bucket, now: float) -> bool:
        return bucket.last + self.seconds >= now


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

    def start(self) -> Counter:
        return _Share(self, None, self.over.start())


@dataclass(frozen=True, slots=True)
class SlowCallRate(_Rate):
    """At least the share `rate` of the calls took longer than `slower_than` seconds.

    Whether they failed does not matter. A call counts as slow as soon as it has run for longer,
    even if it never ends. The time between the items of a generator, which its consumer takes,
    does not count. A half-open circuit takes a slow probe for a failed one.
    """

    slower_than: float = field(kw_only=True)

    def __post_init__(self) -> None:
        _Rate.__post_init__(self)
        checks.positive("slower_than", self.slower_than)

    def start(self) -> Counter:
        return _Share(self, self.slower_than, self.over.start())


class _Share(NamedTuple):
    rule: FailureRate | SlowCallRate
    slower_than: float | None
    tally: _Tally

    @property
    def hears_successes(self) -> bool:
        return True

    def after(self, now: float, duration: float, *, failed: bool) -> Counter:
        rule, slower_than, tally = self
        bad = failed if slower_than is None else duration > slower_than
        return tuple.__new__(_Share, (rule, slower_than, tally.after(now, bad=bad)))

    def trips(self, now: float, hung: int) -> bool:
        # The call that was just counted has brought the tally up to date.
        calls, bad = self.tally.at(now, hung) if hung else (self.tally.calls, self.tally.bad)
        # A quotient, not a product: 7 / 100 is the float 0.07, but 0.07 * 100 is more than 7.
        return calls >= self.rule.minimum_calls and bad / calls >= self.rule.rate

    def reading(self, now: float, hung: int) -> Reading:
        calls, bad = self.tally.at(now, hung)
        return Reading(self.rule, bad / calls if calls else 0.0, self.rule.rate, bad, calls)

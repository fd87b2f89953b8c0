"""What a rate is measured over: the last calls, or the last seconds."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from halfopen import checks

_BUCKETS = 100


class Tally(Protocol):
    """How many calls lie in a window, and how many of them were bad."""

    calls: int
    bad: int

    def add(self, now: float, *, bad: bool) -> None: ...
    def at(self, now: float) -> tuple[int, int]:
        """Calls and bad calls as they stand at `now`, without changing anything."""
        ...


@dataclass(frozen=True, slots=True)
class CallWindow:
    """The last `n` calls."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)

    def start(self) -> Tally:
        return _LastCalls(self.n)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The last `seconds` seconds, in memory that does not depend on how many calls they hold.

    Calls less than a hundredth of the window apart may share a bucket, which is forgotten when the
    youngest call in it is too old: every call counts for `seconds` (the last instant included) and
    for at most a hundredth longer.
    """

    seconds: float

    def __post_init__(self) -> None:
        checks.seconds("seconds", self.seconds)

    def start(self) -> Tally:
        return _LastSeconds(self.seconds)


class _LastCalls:
    """A ring of outcomes, one byte each."""

    __slots__ = ("_next", "_outcomes", "bad", "calls")

    def __init__(self, n: int) -> None:
        self._outcomes = bytearray(n)
        self._next = 0
        self.calls = 0
        self.bad = 0

    def add(self, now: float, *, bad: bool) -> None:  # noqa: ARG002 - a tally of seconds needs it
        outcomes = self._outcomes
        self.bad += bad - outcomes[self._next]
        outcomes[self._next] = bad
        self._next = (self._next + 1) % len(outcomes)
        self.calls = min(self.calls + 1, len(outcomes))

    def at(self, now: float) -> tuple[int, int]:  # noqa: ARG002
        return self.calls, self.bad


class _Bucket:
    __slots__ = ("bad", "calls", "first", "last")

    def __init__(self, now: float) -> None:
        self.first = now
        self.last = now
        self.calls = 0
        self.bad = 0


class _LastSeconds:
    """Buckets that start with a call and take in the calls of the following hundredth."""

    __slots__ = ("_buckets", "_seconds", "bad", "calls")

    def __init__(self, seconds: float) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._seconds = seconds
        self.calls = 0
        self.bad = 0

    def add(self, now: float, *, bad: bool) -> None:
        buckets = self._buckets
        # At most about a hundred turns, after however long a pause.
        while buckets and not self._holds(buckets[0], now):
            old = buckets.popleft()
            self.calls -= old.calls
            self.bad -= old.bad
        if not buckets or now >= buckets[-1].first + self._seconds / _BUCKETS:
            buckets.append(_Bucket(now))
        newest = buckets[-1]
        newest.last = max(newest.last, now)  # threads may bring their times out of order
        newest.calls += 1
        newest.bad += bad
        self.calls += 1
        self.bad += bad

    def at(self, now: float) -> tuple[int, int]:
        live = [bucket for bucket in self._buckets if self._holds(bucket, now)]
        return sum(bucket.calls for bucket in live), sum(bucket.bad for bucket in live)

    def _holds(self, bucket: _Bucket, now: float) -> bool:
        return bucket.last + self._seconds >= now

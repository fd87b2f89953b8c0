"""What a rate is measured over: the last calls, or the last seconds."""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from halfopen import checks

_BUCKETS = 100


@dataclass(frozen=True, slots=True)
class CallWindow:
    """The last `n` calls."""

    n: int

    def __post_init__(self) -> None:
        checks.count("n", self.n)

    def start(self) -> "Tally":
        return _LastCalls(self.n)


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

    def start(self) -> "Tally":
        return _LastSeconds(self.seconds)


class _LastCalls:
    """A ring of outcomes, a byte each."""

    def __init__(self, n: int) -> None:
        self._outcomes = bytearray(n)
        self._next = 0
        self.calls = 0
        self.bad = 0

    def add(self, _now: float, *, bad: bool) -> None:
        ring = self._outcomes
        self.bad += bad - ring[self._next]
        ring[self._next] = bad
        self._next = (self._next + 1) % len(ring)
        self.calls = min(self.calls + 1, len(ring))

    def at(self, _now: float) -> tuple[int, int]:
        return self.calls, self.bad


class _Bucket:
    __slots__ = ("bad", "calls", "first", "last")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.calls = self.bad = 0


class _LastSeconds:
    def __init__(self, seconds: float) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._seconds = seconds
        self.calls = 0
        self.bad = 0

    def add(self, now: float, *, bad: bool) -> None:
        buckets = self._buckets
        while buckets and not self._counts(buckets[0], now):  # a hundred times at most
            old = buckets.popleft()
            self.calls -= old.calls
            self.bad -= old.bad
        if not buckets or now >= buckets[-1].first + self._seconds / _BUCKETS:
            buckets.append(_Bucket(now))
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


Tally: TypeAlias = _LastCalls | _LastSeconds

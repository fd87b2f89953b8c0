"""Counts and latencies of the last seconds, in a fixed amount of memory."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import islice
from statistics import quantiles
from typing import NamedTuple

HISTORY = 120
"""Seconds for which counts, and percentiles of each second, are kept."""
RECENT = 10
"""Seconds covered by `RollingStats.recent`, and the length of a stretch."""
LONG = 90
"""Number of stretches for which counts and percentiles are kept: a quarter of an hour."""
# Stretches with calls that are needed to tell what is usual; the latest ones are left out.
_ENOUGH = 6
_LATEST = 2

# Upper bounds of the latency bins, in seconds, from 0.2 ms to about a minute. Each is a sixth above
# the previous one, so a percentile is at most a sixth too high.
_STEP = 7 / 6
_BOUNDS = [0.0002 * _STEP**n for n in range(84)]
_BINS = len(_BOUNDS) + 1


class Percentiles(NamedTuple):
    """In seconds; None if nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class Stretch(NamedTuple):
    """`counts` by kind and the `latency` of all calls, over a period."""

    counts: list[int]
    latency: Percentiles


_NOTHING = Percentiles(None, None, None)


class RollingStats:
    """Counts calls by kind (an index below `kinds`), and their latencies.

    It has no clock: its owner must call `close_second` at the end of each second.
    """

    __slots__ = ("_closed", "_counts", "_empty", "_histogram", "_histograms", "_long", "_seconds")

    def __init__(self, kinds: int) -> None:
        self._empty = Stretch([0] * kinds, _NOTHING)
        self._seconds = deque([self._empty] * HISTORY, maxlen=HISTORY)
        self._histograms: deque[list[int] | None] = deque([None] * RECENT, maxlen=RECENT)
        self._counts: list[int] | None = None
        self._histogram: list[int] = []
        self._long = deque([self._empty] * LONG, maxlen=LONG)
        self._closed = 0

    def add(self, kind: int, duration: float | None) -> None:
        """Count a call that took `duration` seconds, or was refused (None)."""
        if self._counts is None:
            self._counts = [0] * len(self._empty.counts)
            self._histogram = [0] * _BINS
        self._counts[kind] += 1
        if duration is not None:
            self._histogram[bisect_left(_BOUNDS, duration)] += 1

    def close_second(self) -> None:
        self._close_second()
        self._closed += 1
        if self._closed % RECENT == 0:
            quiet = all(histogram is None for histogram in self._histograms)
            self._long.append(self._empty if quiet else self.recent())

    def usual(self) -> float | None:
        """The usual p95, in seconds.

        It is the lower quartile over the last quarter of an hour, so that it stays low even if
        calls have been slow for ten minutes.
        """
        earlier = list(self._long)[:-_LATEST]
        known = [each.latency.p95 for each in earlier if each.latency.p95 is not None]
        return quantiles(known, n=4)[0] if len(known) >= _ENOUGH else None

    def _close_second(self) -> None:
        if self._counts is None:
            self._seconds.append(self._empty)
            self._histograms.append(None)
            return
        self._seconds.append(Stretch(self._counts, _percentiles(self._histogram)))
        self._histograms.append(self._histogram)
        self._counts = None

    def counts_by_second(self) -> list[list[int]]:
        """For each complete second, oldest first."""
        return [second.counts for second in self._seconds]

    def latency_by_second(self) -> list[Percentiles]:
        """For each complete second, oldest first."""
        return [second.latency for second in self._seconds]

    def counts_by_stretch(self) -> list[list[int]]:
        """For each of the last `LONG` stretches of `RECENT` seconds, oldest first."""
        return [stretch.counts for stretch in self._long]

    def latency_by_stretch(self) -> list[Percentiles]:
        """For each of the last `LONG` stretches of `RECENT` seconds, oldest first."""
        return [stretch.latency for stretch in self._long]

    def recent(self) -> Stretch:
        """The last `RECENT` seconds."""
        recent = islice(self._seconds, HISTORY - RECENT, None)
        counts = [sum(column) for column in zip(*(each.counts for each in recent), strict=True)]
        return Stretch(counts, _percentiles(self._recent_histogram()))

    def _recent_histogram(self) -> list[int]:
        histograms = [each for each in self._histograms if each is not None]
        return [sum(column) for column in zip(*histograms, strict=True)]


def recent_of(all_stats: Iterable[RollingStats]) -> Percentiles:
    """The percentiles over all of them, for the last `RECENT` seconds."""
    found = [histogram for each in all_stats if (histogram := each._recent_histogram())]  # noqa: SLF001  of this file
    return _percentiles([sum(column) for column in zip(*found, strict=True)])


def _percentiles(histogram: list[int]) -> Percentiles:
    """Nearest-rank percentiles, rounded up to the bounds of the bins."""
    total = sum(histogram)
    if not total:
        return _NOTHING
    found: list[float] = []
    wanted = [-(-total * percent // 100) for percent in (50, 95, 99)]
    seen = 0
    for index, count in enumerate(histogram):
        seen += count
        while len(found) < len(wanted) and seen >= wanted[len(found)]:
            found.append(_BOUNDS[min(index, _BINS - 2)])
    return Percentiles(*found)

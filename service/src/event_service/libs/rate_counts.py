from collections.abc import Callable, Sequence
from typing import NamedTuple

from limits import RateLimitItem

from event_service.libs.window_counts import WindowCounts


class Standing(NamedTuple):
    """A client's state: `wait` seconds until it may send again (0.0: now), and for each rate the
    requests left and the seconds until it is full again.
    """

    wait: float
    rates: list[tuple[int, float]]


class RateCounts:
    """Counts clients' requests against several rates, in fixed windows that start with a client's
    first request. A request that any rate refuses counts against none.

    Keeps at most `max_windows` windows for each rate. Times are those of `clock`, in seconds. Use
    from one thread.
    """

    def __init__(
        self, rates: Sequence[RateLimitItem], *, max_windows: int, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        # Separate stores, because each forgets its oldest windows first: many short windows must
        # not push out the long ones.
        self._counts = [(rate, WindowCounts(max_windows, clock=clock)) for rate in rates]

    async def take(self, client: str, *, address: str | None = None) -> Standing:
        """Count one more request of the client, unless a rate refuses it.

        A client that is known by a key of its own choosing also has an `address`. A key without a
        request in its current windows counts against the address as well, so an address cannot
        introduce more keys than it may send requests.
        """
        names = [client]
        if address is not None and not any(
            counts.get(rate.key_for(client)) for rate, counts in self._counts
        ):
            names.append(address)
        now = self._clock()
        wait = 0.0
        for rate, counts in self._counts:
            for key in map(rate.key_for, names):
                if counts.get(key) >= rate.amount:
                    wait = max(wait, counts.get_expiry(key) - now)
        standing = []
        for rate, counts in self._counts:
            keys = [rate.key_for(name) for name in names]
            if not wait:
                for key in keys:
                    counts.incr(key, rate.get_expiry())
            left = max(0, rate.amount - counts.get(keys[0]))
            # A window that starts now reads the clock once more, a little later.
            left_for = min(counts.get_expiry(keys[0]) - now, rate.get_expiry())
            standing.append((left, max(0.0, left_for)))
        return Standing(wait, standing)

from event_service.outbox.store import LEAST_FREE

# Above this fraction of the limit, count before each batch; below it, an estimate is good enough.
NEARLY_FULL = 0.9
FEW = 1_000


class Room:
    """How many more deliveries may be queued.

    Counting a hundred thousand rows takes milliseconds, so it is done only if the limit is small or
    nearly reached. Several processes together may exceed the limit by what they accept between two
    counts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = limit  # unknown: count first

    def must_count(self, wanted: int) -> bool:
        """Whether the caller must count, and call `counted`, before it accepts `wanted` more."""
        return self._limit <= FEW or self._pending + wanted > NEARLY_FULL * self._limit

    def left(self) -> int:
        return max(0, self._limit - self._pending)

    def counted(self, pending: int) -> None:
        self._pending = pending

    def took(self, number: int) -> None:
        self._pending += number

    @staticmethod
    def enough(free: int) -> bool:
        """Whether the disk has enough free space."""
        return free >= LEAST_FREE

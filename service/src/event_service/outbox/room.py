from event_service.outbox.store import LEAST_FREE

# Above this share of the limit each batch counts anew; below, an estimate is near enough.
NEARLY_FULL = 0.9
FEW = 1_000


class Room:
    """How many more deliveries may be queued.

    To count a hundred thousand takes milliseconds, so it is done when it matters: few are allowed
    or nearly all of them are there. Several processes may be over the limit by what they take
    between two counts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = limit  # unknown: count first

    def must_count(self, wanted: int) -> bool:
        """Whether to tell `counted` how many are queued before so many more are let in."""
        return self._limit <= FEW or self._pending + wanted > NEARLY_FULL * self._limit

    def left(self) -> int:
        return max(0, self._limit - self._pending)

    def counted(self, pending: int) -> None:
        self._pending = pending

    def took(self, number: int) -> None:
        self._pending += number

    @staticmethod
    def enough(free: int) -> bool:
        """Whether the disk has room."""
        return free >= LEAST_FREE

from itertools import takewhile


class CallsInFlight:
    """When each call started that has not ended, for rules that ask how long calls take.

    The only part of a circuit that changes in place. Each method is a single atomic operation of a
    dictionary.
    """

    __slots__ = ("_starts",)

    def __init__(self) -> None:
        self._starts: dict[object, float] = {}  # in the order of their values

    def begin(self, key: object, started: float) -> None:
        self._starts[key] = started

    def end(self, key: object) -> None:
        self._starts.pop(key, None)

    def longer_than(self, limit: float | None, now: float) -> int:
        """Number of calls that have run for longer than `limit` seconds."""
        if limit is None:
            return 0
        while True:
            try:
                late = takewhile(lambda started: now - started > limit, self._starts.values())
                return sum(1 for _ in late)
            except RuntimeError:  # a call began or ended meanwhile
                continue

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

CAPACITY = 10_000


class Entry(msgspec.Struct, gc=False):
    """One call. `started` is in Unix seconds and `duration` in seconds.

    `status` stays null while the call is in flight, and for good if no answer was sent.
    """

    operation: str | None
    method: str
    path: str
    started: float
    idempotency_key: str | None
    traceparent: str | None
    request_id: str | None
    status: int | None = None
    duration: float | None = None
    fault: str | None = None


class Tally(msgspec.Struct):
    count: int = 0
    in_flight: int = 0
    max_in_flight: int = 0

    def enter(self) -> None:
        self.count += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1

    def reset(self) -> None:
        """Start counting anew; what is in flight now still is."""
        self.count = 0
        self.max_in_flight = self.in_flight


class Journal:
    """What reached the upstream: the latest calls, and counts of them all.

    `on_end`, if set, is told each call when it has ended.
    """

    def __init__(self, operations: tuple[str, ...], capacity: int = CAPACITY) -> None:
        self.on_end: Callable[[Entry], None] | None = None
        self.entries: deque[Entry] = deque(maxlen=capacity)
        self.total = Tally()
        self.operations = {operation: Tally() for operation in operations}

    @property
    def max_in_flight(self) -> int:
        return self.total.max_in_flight

    @property
    def counts(self) -> dict[str, int]:
        return {operation: tally.count for operation, tally in self.operations.items()}

    def begin(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.total.enter()
        if entry.operation is not None:
            self.operations[entry.operation].enter()

    def end(self, entry: Entry, duration: float) -> None:
        entry.duration = duration
        self.total.leave()
        if entry.operation is not None:
            self.operations[entry.operation].leave()
        if self.on_end is not None:
            self.on_end(entry)

    def clear(self) -> None:
        self.entries.clear()
        self.total.reset()
        for tally in self.operations.values():
            tally.reset()

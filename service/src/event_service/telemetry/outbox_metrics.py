from bisect import bisect_left

from event_service.signals import (
    DeliveryAccepted,
    DeliveryEnded,
    OutboxFailed,
    OutboxSeen,
    Signals,
)
from event_service.telemetry.cells import Cells
from event_service.telemetry.exposition import BOUNDS, HISTOGRAM, SUM


class OutboxMetrics:
    """Counts deliveries. The gauges cover all processes, as each process last saw them."""

    def __init__(self, cells: Cells) -> None:
        self._values = cells.values
        self._pending = cells.claim("outbox_pending")
        self._oldest = cells.claim("outbox_oldest_seconds")
        self._accepted = cells.claim("outbox_accepted")
        self._failures = cells.claim("outbox_failures")
        self._ended = {
            state: cells.claim(f"outbox_{state}") for state in ("delivered", "refused", "dead")
        }
        self._accepts = cells.claim("outbox_accept_duration_seconds", size=HISTOGRAM)
        self._deliveries = cells.claim("outbox_delivery_seconds", size=HISTOGRAM)

    def listen(self, signals: Signals) -> None:
        signals.on(DeliveryAccepted, self._on_accepted)
        signals.on(DeliveryEnded, self._on_ended)
        signals.on(OutboxSeen, self._on_seen)
        signals.on(OutboxFailed, self._on_failed)

    def _on_accepted(self, signal: DeliveryAccepted) -> None:
        self._observe(self._accepts, signal.duration)
        if signal.new:
            self._values[self._accepted] += 1
            self._values[self._pending] += 1

    def _on_ended(self, signal: DeliveryEnded) -> None:
        self._values[self._ended[signal.state]] += 1
        self._values[self._pending] = max(0.0, self._values[self._pending] - 1)
        if signal.state == "delivered":
            self._observe(self._deliveries, signal.age)

    def _on_seen(self, signal: OutboxSeen) -> None:
        self._values[self._pending] = signal.pending
        self._values[self._oldest] = signal.oldest

    def _on_failed(self, _signal: OutboxFailed) -> None:
        self._values[self._failures] += 1

    def _observe(self, histogram: int, seconds: float) -> None:
        self._values[histogram + bisect_left(BOUNDS, seconds)] += 1
        self._values[histogram + SUM] += seconds

import structlog

from event_service.errors import UpstreamError
from event_service.signals import (
    DeliveryEnded,
    DeliveryFailed,
    DeliveryFenced,
    OutboxFailed,
    Signals,
)


class OutboxLines:
    """Logs what happens to deliveries.

    `request_id` is that of the delivering call, which the upstream has seen; `accepted_as` is that
    of the request that brought the event.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def listen(self, signals: Signals) -> None:
        signals.on(DeliveryEnded, self._ended)
        signals.on(DeliveryFailed, self._failed)
        signals.on(DeliveryFenced, self._fenced)
        signals.on(OutboxFailed, self._outbox_failed)

    def _ended(self, signal: DeliveryEnded) -> None:
        level = {"delivered": "info", "refused": "warning", "dead": "error"}[signal.state]
        getattr(self._log, level)(
            "delivery",
            accepted_as=signal.accepted_as,
            delivery_id=signal.delivery_id,
            state=signal.state,
            attempts=signal.attempts,
            age_s=round(signal.age, 3),
            **_error(signal.error),
        )

    def _failed(self, signal: DeliveryFailed) -> None:
        self._log.warning(
            "delivery failed",
            accepted_as=signal.accepted_as,
            delivery_id=signal.delivery_id,
            attempts=signal.attempts,
            next_try_s=round(signal.rest, 3),
            **_error(signal.error),
        )

    def _fenced(self, signal: DeliveryFenced) -> None:
        self._log.warning(
            "delivery fenced",
            accepted_as=signal.accepted_as,
            delivery_id=signal.delivery_id,
            message="another worker has taken the user over; what it writes counts",
        )

    def _outbox_failed(self, signal: OutboxFailed) -> None:
        self._log.error("outbox failed", doing=signal.doing, reason=str(signal.error))


def _error(error: Exception | None) -> dict[str, str]:
    if error is None:
        return {}
    if isinstance(error, UpstreamError):
        return {"error": type(error).__name__, "reason": error.reason}
    return {"error": type(error).__name__}

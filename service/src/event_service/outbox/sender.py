from collections.abc import Callable
from typing import Protocol

import msgspec

from event_service import context
from event_service.context import CallContext
from event_service.libs.trace_context import parse
from event_service.models import NewEvent
from event_service.outbox.records import Delivery
from event_service.signals import DeliveryBegan, Emit

_new_event = msgspec.json.Decoder(NewEvent)


class Sink(Protocol):
    """Where events are sent: the guarded source that requests use, too."""

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str: ...


class Sender:
    """Sends a delivery's event in a call context of its own, which continues the request's trace.

    It remains the task's current call until the next delivery, for listeners to signals.
    """

    def __init__(self, sink: Sink, *, new_id: Callable[[], str], emit: Emit) -> None:
        self._sink = sink
        self._new_id = new_id
        self._emit = emit

    async def send(self, delivery: Delivery) -> str:
        """The id under which the event is stored. Raises what the sink raises."""
        parent = parse([delivery.traceparent], []) if delivery.traceparent else None
        call = CallContext(self._new_id(), parent)
        context.current.set(call)
        self._emit(DeliveryBegan(call, delivery.id))
        return await self._sink.add_event(
            _new_event.decode(delivery.body),
            event_id=delivery.id,
            idempotency_key=delivery.upstream_key,
        )

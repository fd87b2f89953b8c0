import hashlib

import msgspec

from event_service.context import CallContext
from event_service.models import NewEvent
from event_service.outbox.records import NewDelivery


def client_of(api_key: str | None) -> str:
    """A hash of a client's API key, to recognize the client later; "" without a key."""
    return hashlib.sha256(api_key.encode()).hexdigest() if api_key else ""


def new_delivery(
    event: NewEvent,
    *,
    event_id: str,
    upstream_key: str,
    client_key: str | None,
    api_key: str | None,
    call: CallContext,
) -> NewDelivery:
    """The delivery of this request's event, with its id and `Idempotency-Key` for the upstream.

    `client_key` is the key that the client sent, if any. It is stored together with the client, so
    that two clients may use the same key.
    """
    client = client_of(api_key)
    body = msgspec.json.encode(event)
    # A missing description and an empty one mean the same event.
    told = [event.userId, event.title, event.description or ""]
    return NewDelivery(
        id=event_id,
        idem_key=None if client_key is None else f"{client}:{client_key}",
        fingerprint=hashlib.sha256(msgspec.json.encode(told)).digest(),
        client=client,
        user_id=event.userId,
        body=body,
        upstream_key=upstream_key,
        request_id=call.request_id,
        traceparent=call.traceparent or "",
    )

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

# A random namespace of our own. Never change it: a retried write would get a different id.
_NAMESPACE = UUID("79508e59-802b-44dc-b5f5-da419b3fe963")


class EventIdentity(NamedTuple):
    """Tells a repeated write from a new one, for the upstream and for us."""

    event_id: str
    idempotency_key: str


def identify(
    user_id: str, *, client_key: str | None, api_key: str | None, new_id: Callable[[], str]
) -> EventIdentity:
    """The identity of a new event for a user.

    With a client's `Idempotency-Key`, the id is the UUIDv5 of its API key (if any), the user and
    that key: every worker and machine computes the same id for a retry. Without a key, every call
    is a new event.

    `api_key` is None if clients have no API keys, "" if this client sent none. If clients have
    keys, the upstream gets the id as its key, so two clients that both send `1` do not collide.
    """
    if client_key is None:
        event_id = new_id()
        return EventIdentity(event_id, event_id)
    name = msgspec.json.encode([*([api_key] if api_key else []), user_id, client_key]).decode()
    event_id = str(uuid5(_NAMESPACE, name))
    return EventIdentity(event_id, client_key if api_key is None else event_id)

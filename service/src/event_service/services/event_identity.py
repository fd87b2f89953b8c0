from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

# Ours alone, drawn once. Another one would give a retry of an earlier write another id.
_NAMESPACE = UUID("79508e59-802b-44dc-b5f5-da419b3fe963")


class EventIdentity(NamedTuple):
    """What lets the upstream, and us, tell the same write from a new one."""

    event_id: str
    idempotency_key: str


def identify(
    user_id: str, *, client_key: str | None, api_key: str | None, new_id: Callable[[], str]
) -> EventIdentity:
    """The identity of a new event for a user.

    With the `Idempotency-Key` of a client the id is the UUIDv5 over its API key, if any, the user
    and that key: a retry sends the same id, whichever worker or machine it meets. Without one,
    every call is a new event.

    `api_key` is None where clients are not told apart by one, "" where this client sent none.
    Where they are, the id is the upstream's key too: two clients that both send `1` do not meet.
    """
    if client_key is None:
        event_id = new_id()
        return EventIdentity(event_id, event_id)
    name = msgspec.json.encode([*([api_key] if api_key else []), user_id, client_key]).decode()
    event_id = str(uuid5(_NAMESPACE, name))
    return EventIdentity(event_id, client_key if api_key is None else event_id)

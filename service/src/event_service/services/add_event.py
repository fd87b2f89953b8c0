from collections.abc import Callable
from typing import Protocol

from event_service.models import NewEvent
from event_service.services.event_identity import identify


class EventSink(Protocol):
    """Where new events go."""

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str: ...


class AddEvent:
    """Adds an event under an id that we give, so that the same write can be told from a new one."""

    def __init__(
        self, api: EventSink, *, new_id: Callable[[], str], on_added: Callable[[str], None]
    ) -> None:
        """`on_added` is told the user whose events have changed, before the caller is."""
        self._api = api
        self._new_id = new_id
        self._on_added = on_added

    async def add(
        self, event: NewEvent, *, idempotency_key: str | None = None, api_key: str | None = None
    ) -> str:
        """The id under which the event is stored.

        With the idempotency key of an earlier call, that call's id: nothing is stored twice.
        `api_key` as in `identify`.
        """
        identity = identify(
            event.userId, client_key=idempotency_key, api_key=api_key, new_id=self._new_id
        )
        stored_as = await self._api.add_event(
            event, event_id=identity.event_id, idempotency_key=identity.idempotency_key
        )
        self._on_added(event.userId)
        return stored_as

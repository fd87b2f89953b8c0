from collections.abc import Callable

from event_service.models import NewEvent
from event_service.services.event_identity import identify
from event_service.services.source import EventsSource


class AddEvent:
    """Adds an event under an id that we give, so that the same write can be told from a new one."""

    def __init__(self, source: EventsSource, *, new_id: Callable[[], str]) -> None:
        self._source = source
        self._new_id = new_id

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
        return await self._source.add_event(
            event, event_id=identity.event_id, idempotency_key=identity.idempotency_key
        )

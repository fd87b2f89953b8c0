from event_service.models import Event, PartialEvents
from event_service.services.source import EventsSource


class UserEvents:
    """A user's events: all of them, or those that could be read."""

    def __init__(self, source: EventsSource) -> None:
        self._source = source

    async def for_user(self, user_id: str) -> list[Event]:
        """The events in the order of the user's list. If one fails, the call fails."""
        return await self._source.events_of(user_id)

    async def for_user_partial(self, user_id: str) -> PartialEvents:
        """The events that could be read, and an error for each of the others."""
        return await self._source.partial_events_of(user_id)

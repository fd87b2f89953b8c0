from event_service.models import Event, PartialEvents
from event_service.services.source import EventsSource


class UserEvents:
    """A user's events: all of them, or what could be had of them."""

    def __init__(self, source: EventsSource) -> None:
        self._source = source

    async def for_user(self, user_id: str) -> list[Event]:
        """The events in the order of the user's list. One that fails fails all."""
        return await self._source.events_of(user_id)

    async def for_user_partial(self, user_id: str) -> PartialEvents:
        """As `for_user`, but what fails is told and leaves the rest alone."""
        return await self._source.partial_events_of(user_id)

from typing import Protocol

from event_service.models import Event, NewEvent, PartialEvents, User


class EventsSource(Protocol):
    """Users and events as the services need them; implemented by the guarded source."""

    async def users(self) -> list[User]: ...

    async def events(self) -> list[Event]: ...

    async def events_of(self, user_id: str) -> list[Event]: ...

    async def partial_events_of(self, user_id: str) -> PartialEvents: ...

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str: ...

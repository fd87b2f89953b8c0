from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from event_service.errors import IdempotencyKeyReused
from event_service.models import NewEvent
from event_service.services.event_identity import EventIdentity, identify
from event_service.services.source import EventsSource


class AddEvent:
    """Adds events. Each gets an id from us, so that a repeated write is recognized."""

    def __init__(self, source: EventsSource, *, new_id: Callable[[], str]) -> None:
        self._source = source
        self._new_id = new_id
        self._under_way: dict[tuple[str, str], _UnderWay] = {}

    def identify(
        self, event: NewEvent, *, idempotency_key: str | None, api_key: str | None
    ) -> EventIdentity:
        """The id and key for an event, sent now or through the outbox; parameters as in `add`."""
        return identify(
            event.userId, client_key=idempotency_key, api_key=api_key, new_id=self._new_id
        )

    async def add(
        self, event: NewEvent, *, idempotency_key: str | None = None, api_key: str | None = None
    ) -> str:
        """The id under which the event is stored.

        A repeated idempotency key gives the id of the first call: nothing is stored twice.
        `api_key` as in `identify`. Raises IdempotencyKeyReused while this process is adding a
        different event with the same key from the same client.
        """
        identity = self.identify(event, idempotency_key=idempotency_key, api_key=api_key)
        if idempotency_key is None:
            return await self._send(event, identity)
        with self._alone(event, (api_key or "", idempotency_key)):
            return await self._send(event, identity)

    def _send(self, event: NewEvent, identity: EventIdentity) -> Awaitable[str]:
        return self._source.add_event(
            event, event_id=identity.event_id, idempotency_key=identity.idempotency_key
        )

    @contextmanager
    def _alone(self, event: NewEvent, key: tuple[str, str]) -> Iterator[None]:
        under_way = self._under_way.setdefault(key, _UnderWay(event))
        if under_way.event != event:
            raise IdempotencyKeyReused
        under_way.calls += 1
        try:
            yield
        finally:
            under_way.calls -= 1
            if not under_way.calls:
                del self._under_way[key]


class _UnderWay:
    """An event that is being added, and the number of calls that are adding it."""

    __slots__ = ("calls", "event")

    def __init__(self, event: NewEvent) -> None:
        self.event = event
        self.calls = 0

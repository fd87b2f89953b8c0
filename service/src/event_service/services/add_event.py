from collections.abc import Callable, Iterator
from contextlib import contextmanager

from event_service.errors import IdempotencyKeyReused
from event_service.models import NewEvent
from event_service.services.event_identity import EventIdentity, identify
from event_service.services.source import EventsSource


class AddEvent:
    """Adds events, each under an id of ours, so that a repeated write can be recognized."""

    def __init__(self, source: EventsSource, *, new_id: Callable[[], str]) -> None:
        self._source = source
        self._new_id = new_id
        self._under_way: dict[tuple[str, str], _UnderWay] = {}

    def identify(
        self, event: NewEvent, *, idempotency_key: str | None, api_key: str | None
    ) -> EventIdentity:
        """What the event is stored under, however it gets there; parameters as those of `add`."""
        return identify(
            event.userId, client_key=idempotency_key, api_key=api_key, new_id=self._new_id
        )

    async def add(
        self, event: NewEvent, *, idempotency_key: str | None = None, api_key: str | None = None
    ) -> str:
        """The id under which the event is stored.

        With the idempotency key of an earlier call, that call's id: nothing is stored twice.
        `api_key` as in `identify`. Raises IdempotencyKeyReused while another event with the same
        client's key is under way in this process.
        """
        identity = self.identify(event, idempotency_key=idempotency_key, api_key=api_key)
        if idempotency_key is None:
            return await self._send(event, identity)
        with self._alone(event, (api_key or "", idempotency_key)):
            return await self._send(event, identity)

    async def _send(self, event: NewEvent, identity: EventIdentity) -> str:
        return await self._source.add_event(
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
    """An event that is being added, by so many calls at once."""

    __slots__ = ("calls", "event")

    def __init__(self, event: NewEvent) -> None:
        self.event = event
        self.calls = 0

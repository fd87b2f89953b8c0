from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import NamedTuple, Protocol

from event_service.errors import EventServiceError
from event_service.libs.fan_out import Call, fan_out, fan_out_settled
from event_service.libs.single_flight import SingleFlight
from event_service.models import Event, User
from halfopen import CircuitOpen


class UsersAndEvents(Protocol):
    """Where users and their events come from."""

    async def user(self, user_id: str) -> User: ...

    def event(self, event_id: str) -> Call[Event]: ...


class PartialEvents(NamedTuple):
    """What could be had, in the order of the user's list, and the id and error of each other."""

    events: list[Event]
    errors: list[tuple[str, Exception]]


class UserEvents:
    """A user's events, all fetched at once with at most `limit` in flight.

    With `on_shared`, whoever asks for a user whose events are on their way gets the same answer,
    however quick the user's own look-up was; `on_shared` is told the context of the first asker.
    """

    def __init__(
        self,
        api: UsersAndEvents,
        *,
        limit: int,
        on_shared: Callable[[Context], None] | None = None,
    ) -> None:
        self._api = api
        self._limit = limit
        self._shares = on_shared is not None
        self._strict: SingleFlight[str, list[Event]] = SingleFlight(on_shared)
        self._partial: SingleFlight[str, PartialEvents] = SingleFlight(on_shared)

    async def for_user(self, user_id: str) -> list[Event]:
        """The events in the order of the user's list.

        The first event that fails raises its error and cancels the others.
        """
        if not self._shares:
            return await self._fetch(user_id)
        return await self._strict.run(user_id, partial(self._fetch, user_id))

    async def for_user_partial(self, user_id: str) -> PartialEvents:
        """As `for_user`, but what fails is told and leaves the rest alone.

        An error of the user look-up, and a bug of ours, are raised all the same.
        """
        if not self._shares:
            return await self._fetch_partial(user_id)
        return await self._partial.run(user_id, partial(self._fetch_partial, user_id))

    def forget(self, user_id: str) -> None:
        """Whoever asks from now on gets no answer that was begun before."""
        self._strict.forget(user_id)
        self._partial.forget(user_id)

    async def _fetch(self, user_id: str) -> list[Event]:
        user = await self._api.user(user_id)
        return await fan_out(self._api.event, user.events, limit=self._limit)

    async def _fetch_partial(self, user_id: str) -> PartialEvents:
        user = await self._api.user(user_id)
        results = await fan_out_settled(self._api.event, user.events, limit=self._limit)
        return _sorted_out(user.events, results)


def _sorted_out(ids: Sequence[str], results: Sequence[Event | Exception]) -> PartialEvents:
    partial = PartialEvents([], [])
    for event_id, result in zip(ids, results, strict=True):
        if not isinstance(result, Exception):
            partial.events.append(result)
        elif isinstance(result, EventServiceError | CircuitOpen):
            partial.errors.append((event_id, result))
        else:
            raise result
    return partial

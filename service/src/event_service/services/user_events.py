from collections.abc import Sequence
from typing import NamedTuple, Protocol

from event_service.errors import EventServiceError
from event_service.libs.fan_out import fan_out, fan_out_settled
from event_service.models import Event, User
from halfopen import CircuitOpen


class UsersAndEvents(Protocol):
    """Where users and their events come from."""

    async def user(self, user_id: str) -> User: ...

    async def event(self, event_id: str) -> Event: ...


class PartialEvents(NamedTuple):
    """What could be had, in the order of the user's list, and the id and error of each other."""

    events: list[Event]
    errors: list[tuple[str, Exception]]


class UserEvents:
    """A user's events, all fetched at once with at most `limit` in flight."""

    def __init__(self, api: UsersAndEvents, *, limit: int) -> None:
        self._api = api
        self._limit = limit

    async def for_user(self, user_id: str) -> list[Event]:
        """The events in the order of the user's list.

        The first event that fails raises its error and cancels the others.
        """
        user = await self._api.user(user_id)
        return await fan_out(self._api.event, user.events, limit=self._limit)

    async def for_user_partial(self, user_id: str) -> PartialEvents:
        """As `for_user`, but what fails is told and leaves the rest alone.

        An error of the user look-up, and a bug of ours, are raised all the same.
        """
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

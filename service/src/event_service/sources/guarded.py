"""Any source of users and events under the policies of its operations."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Protocol, TypeVar

from event_service import context
from event_service.errors import (
    DeadlineExceeded,
    EventServiceError,
    Overloaded,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnavailable,
    UserNotFound,
)
from event_service.libs.fan_out import fan_out, fan_out_settled
from event_service.libs.single_flight import SingleFlight
from event_service.models import Event, NewEvent, PartialEvents, User, is_id
from event_service.sources.cached_read import CachedRead
from event_service.sources.policy import Guard, Policies, Read, tell_shared
from halfopen import CircuitOpen

T = TypeVar("T")

OPERATIONS = ("addEvent", "getUsers", "getUserById", "getEvents", "getEventById")
EVENTS_OF_USER = "getEventsByUserId"
# After these errors a write was certainly not stored; after any other error it may have been.
_NOT_STORED = (
    *(CircuitOpen, Overloaded, DeadlineExceeded),
    *(UpstreamRefused, UserNotFound, UpstreamFailed, UpstreamUnavailable),
)


class Source(Protocol):
    """Where users and events come from, such as the events API over HTTP.

    A source may also have `events_of(user_id) -> list[Event]`, which reads all events of a user in
    one call, in the order of the user's list. Without it, the user is read first and then each of
    its events.

    Methods raise UserNotFound for an unknown user, UpstreamNotFound for an unknown event,
    UpstreamRefused for a call they refuse, Overloaded when a local resource is used up, and
    UpstreamFailed or another UpstreamFault when the source fails. Any other exception counts as a
    failure too. Methods need no time limit of their own. They may report the progress of a call
    to `context.attempt`.
    """

    async def users(self) -> list[User]: ...

    async def user(self, user_id: str) -> User: ...

    async def events(self) -> list[Event]: ...

    async def event(self, event_id: str) -> Event: ...

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the event is stored: ours, or that of an earlier try."""


def operations_of(source: Source) -> tuple[str, ...]:
    """The guarded operations; each has its own breaker."""
    has_events_of = getattr(source, "events_of", None) is not None
    return (*OPERATIONS, EVENTS_OF_USER) if has_events_of else OPERATIONS


class GuardedEvents:
    """A source behind single flight, retries, breakers, a concurrency limit and a cache.

    Raises what the source raises, and CircuitOpen, Overloaded, DeadlineExceeded and
    UpstreamTimeout.
    """

    def __init__(self, source: Source, policies: Policies) -> None:
        self._source = source
        self._add = Guard("addEvent", policies)
        self._users = _read("getUsers", source.users, policies)
        self._user = _read("getUserById", source.user, policies)
        self._events = _read("getEvents", source.events, policies)
        self._event = _read("getEventById", source.event, policies)
        self._at_once = policies.bulkhead.limit
        self._limits = policies.limits
        self._emit = policies.emit
        fetch: Callable[[str], Awaitable[list[Event]]] | None = getattr(source, "events_of", None)
        self._events_of = None if fetch is None else _read(EVENTS_OF_USER, fetch, policies)
        # With a cache, answers are not shared: each request reports its own cache status.
        self._answers: SingleFlight[str, list[Event]] | None = None
        self._user_of_answer: Callable[[str], Awaitable[User]] = self._user
        if policies.single_flight and isinstance(self._user, Read):
            self._answers = SingleFlight(self._on_shared)
            # The whole answer is shared, so a separate flight for the user would only cost a task.
            self._user_of_answer = self._user.unshared

    async def users(self) -> list[User]:
        return await self._users()

    async def events(self) -> list[Event]:
        return await self._events()

    async def events_of(self, user_id: str) -> list[Event]:
        """The user's events, in the order of the user's list.

        The first event that fails raises its error and cancels the others. Callers that ask for
        the same user at the same time share one answer.
        """
        if self._events_of is not None:
            return await self._events_of(user_id)
        if self._answers is None:
            return await self._all_of(user_id)
        return await self._answers.run(user_id, self._all_of, user_id)

    async def partial_events_of(self, user_id: str) -> PartialEvents:
        """The events that could be read before the deadline, and an error for each other event.

        If the user cannot be read, or we have a bug, the error is raised.
        """
        if self._events_of is not None:
            return PartialEvents(await self._events_of(user_id), [])
        user = await self._user(user_id)
        results = await fan_out_settled(self._event_in_time, user.events, limit=self._at_once)
        return _sorted_out(user.events, results)

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the event is stored. A write is never retried.

        After an error the event may or may not be stored; the caller may try again with the same
        key. If it is stored, reads that start afterwards see it.
        """
        try:
            stored_as = await self._add.attempt(
                1,
                self._source.add_event,
                event,
                event_id=event_id,
                idempotency_key=idempotency_key,
            )
        except BaseException as error:
            if isinstance(error, UpstreamBroken) or not isinstance(error, _NOT_STORED):
                self._forget(event.userId)
            raise
        self._forget(event.userId)
        return stored_as

    def _forget(self, user_id: str) -> None:
        self._user.forget(user_id)
        self._users.forget()
        self._events.forget()
        if self._events_of is not None:
            self._events_of.forget(user_id)
        if self._answers is not None:
            self._answers.forget(user_id)

    async def _all_of(self, user_id: str) -> list[Event]:
        user = await self._user_of_answer(user_id)
        return await fan_out(self._listed_event, user.events, limit=self._at_once)

    def _listed_event(self, event_id: str) -> asyncio.Future[Event]:
        if not is_id(event_id):
            raise UpstreamRefused(
                "getEventById",
                "The upstream listed an event under an impossible id.",
                reason="impossible event id",
            )
        return self._event(event_id)

    async def _event_in_time(self, event_id: str) -> Event:
        try:
            with self._limits(context.answer_by()):
                return await self._listed_event(event_id)
        except TimeoutError:
            raise DeadlineExceeded(
                "There was no answer within the time a request has.",
                operation="getEventById",
                reason="deadline: no reply in time",
            ) from None

    def _on_shared(self, leading: Context) -> None:
        # Report the first call that was saved; the calls for the events were saved too.
        tell_shared("getUserById", leading, self._emit)


def _read(
    operation: str, fetch: Callable[..., Awaitable[T]], policies: Policies
) -> Read[T] | CachedRead[T]:
    if policies.cache is None:
        return Read(operation, fetch, policies)
    return CachedRead(operation, fetch, policies, policies.cache)


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

import pytest

from event_service.errors import UpstreamRefused
from event_service.models import Event, NewEvent, User
from event_service.sources.guarded import OPERATIONS, GuardedEvents

from .guards import policies

pytestmark = pytest.mark.anyio


class Source:
    """A user with three events, of which the middle one raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def users(self) -> list[User]:
        return []

    async def events(self) -> list[Event]:
        return []

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        return event_id

    async def user(self, user_id: str) -> User:
        return User(user_id, "Alice", ["a", "b", "c"])

    async def event(self, event_id: str) -> Event:
        if event_id == "b":
            raise self._error
        return Event(event_id, "1", "t")


def guarded(source: Source) -> GuardedEvents:
    return GuardedEvents(source, policies(operations=OPERATIONS))


async def test_a_partial_reply_tells_the_error_of_each_event_that_failed():
    error = UpstreamRefused("getEventById", "No.", reason="test")
    partial = await guarded(Source(error)).partial_events_of("1")

    assert [event.id for event in partial.events] == ["a", "c"]
    assert partial.errors == [("b", error)]


async def test_a_bug_is_raised_and_not_part_of_a_partial_reply():
    with pytest.raises(ZeroDivisionError):
        await guarded(Source(ZeroDivisionError())).partial_events_of("1")


async def test_the_error_of_one_event_is_raised_itself():
    error = UpstreamRefused("getEventById", "No.", reason="test")
    with pytest.raises(UpstreamRefused) as raised:
        await guarded(Source(error)).events_of("1")
    assert raised.value is error

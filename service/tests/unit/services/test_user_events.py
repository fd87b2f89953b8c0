import pytest

from event_service.errors import UpstreamRefused
from event_service.models import Event, User
from event_service.services.user_events import UserEvents

pytestmark = pytest.mark.anyio


class Source:
    """A user with three events, of which the middle one raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def user(self, user_id: str) -> User:
        return User(user_id, "Alice", ["a", "b", "c"])

    async def event(self, event_id: str) -> Event:
        if event_id == "b":
            raise self._error
        return Event(event_id, "1", "t")


async def test_a_partial_reply_tells_the_error_of_each_event_that_failed():
    error = UpstreamRefused("getEventById", "No.", reason="test")
    partial = await UserEvents(Source(error), limit=2).for_user_partial("1")

    assert [event.id for event in partial.events] == ["a", "c"]
    assert partial.errors == [("b", error)]


async def test_a_bug_of_ours_is_no_part_of_a_reply():
    with pytest.raises(ZeroDivisionError):
        await UserEvents(Source(ZeroDivisionError()), limit=2).for_user_partial("1")


async def test_the_error_of_one_event_is_raised_itself():
    error = UpstreamRefused("getEventById", "No.", reason="test")
    with pytest.raises(UpstreamRefused) as raised:
        await UserEvents(Source(error), limit=1).for_user("1")
    assert raised.value is error

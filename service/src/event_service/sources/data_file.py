"""The file of import and export: `{"users":[…],"events":[…]}`, in the shapes of the API."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from event_service.errors import UpstreamError
from event_service.libs.fan_out import fan_out
from event_service.libs.json_records import NotRecords, Readable, records
from event_service.models import Event, User, is_id
from event_service.sources.guarded import Source
from event_service.sources.sql_events import ADDED, Placed
from event_service.sources.translation import EVENT, USER, Shape

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class DataFault(Exception):
    """The data cannot be imported; the text names the record by its path, such as `$.users[1]`."""


class Data(NamedTuple):
    """Records that are checked as they are read. Read all users first, then all events, once.

    Both iterators raise DataFault.
    """

    users: Iterator[User]
    events: Iterator[Placed]


def read_file(file: Readable) -> Data:
    """The records of a file, which may be larger than memory: it is read twice, in parts.

    `null` counts as absent and ids may be numbers, as from an upstream.
    """
    return checked(_records(file, "users", USER), _records(file, "events", EVENT))


async def read_api(api: Source, *, at_once: int) -> tuple[list[User], list[Event]]:
    """All users and events of an events API.

    An event that a user lists but getEvents does not is read by its id. Raises what the API raises.
    """
    users, events = await api.users(), await api.events()
    there = {event.id for event in events}
    missing = [each for user in users for each in user.events if each not in there]
    events += await fan_out(api.event, missing, limit=at_once)
    return users, events


def checked(users: Iterable[User], events: Iterable[Event]) -> Data:
    """The records, checked, and each event with its position in its user's list."""
    check = _Check()
    return Data(check.users(users), check.events(events))


class _Listed(NamedTuple):
    """The position at which a user lists an event: `$.users[user].events[place]`."""

    user_id: str
    user: int
    place: int


class _Check:
    """Checks records one by one; only their ids stay in memory."""

    def __init__(self) -> None:
        self._users: set[str] = set()
        self._listed: dict[str, _Listed] = {}

    def users(self, users: Iterable[User]) -> Iterator[User]:
        for n, user in enumerate(users):
            _check(f"$.users[{n}]", self._users, user.id, user.name)
            self._users.add(user.id)
            for place, event_id in enumerate(user.events):
                here = _Listed(user.id, n, place)
                other = self._listed.setdefault(event_id, here)
                if other is not here:
                    raise DataFault(
                        f"$.users[{n}].events[{place}]: {event_id!r} is listed before, in"
                        f" $.users[{other.user}].events[{other.place}]"
                    )
            yield user

    def events(self, events: Iterable[Event]) -> Iterator[Placed]:
        there: set[str] = set()
        for n, event in enumerate(events):
            path = f"$.events[{n}]"
            _check(path, there, event.id, event.title, event.description)
            there.add(event.id)
            if event.userId not in self._users:
                raise DataFault(f"{path}.userId: there is no user {event.userId!r}")
            listed = self._listed.pop(event.id, None)
            if listed is not None and listed.user_id != event.userId:
                raise DataFault(f"{path}.userId: {event.userId!r}, but {listed.user_id!r} lists it")
            yield Placed(event, ADDED if listed is None else listed.place)
        for event_id, listed in self._listed.items():
            raise DataFault(
                f"$.users[{listed.user}].events[{listed.place}]: there is no event {event_id!r}"
            )


async def written(records: AsyncIterator[User | Event]) -> AsyncIterator[bytes]:
    """The bytes of the file, record by record; users come before events."""
    yield b'{"users":['
    separator, in_users = b"\n", True
    async for record in records:
        if in_users and isinstance(record, Event):
            in_users = False
            yield b'],\n"events":['
            separator = b"\n"
        yield separator + _encode(record)
        separator = b",\n"
    yield b"]}\n" if not in_users else b'],\n"events":[]}\n'


def _records(file: Readable, name: str, shape: Shape[T | None, Any]) -> Iterator[T]:
    try:
        for n, raw in enumerate(records(file, name)):
            yield _decoded(shape, raw, f"$.{name}[{n}]")
    except NotRecords as error:
        raise DataFault(str(error)) from error
    except OSError as error:
        raise DataFault(f"It cannot be read: {error.strerror}.") from error


def _decoded(shape: Shape[T | None, Any], raw: bytes, path: str) -> T:
    try:
        record = shape.decode("import", raw)
    except UpstreamError as error:
        # The reason names a place within the record: "$.title: …".
        raise DataFault(f"{path}{error.reason.removeprefix('$')}") from error
    if record is None:
        raise DataFault(f"{path}: must not be null")
    return record


def _check(path: str, known: set[str], record_id: str, *texts: str) -> None:
    if not is_id(record_id):
        raise DataFault(f"{path}.id: {record_id!r} is no id that a path could hold")
    if record_id in known:
        raise DataFault(f"{path}.id: {record_id!r} is there twice")
    if any("\0" in text for text in texts):
        raise DataFault(f"{path}: a text holds the character NUL")

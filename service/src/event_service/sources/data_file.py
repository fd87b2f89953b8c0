"""The file of import and export: `{"users":[…],"events":[…]}`, in the shapes of the API."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from event_service.errors import UpstreamError
from event_service.libs.fan_out import fan_out
from event_service.models import Event, User, is_id
from event_service.sources.guarded import Source
from event_service.sources.sql_events import ADDED, Placed
from event_service.sources.translation import EVENT, USER, Shape

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class DataFault(Exception):
    """The data cannot be imported; the text names the record by its path, such as `$.users[1]`."""


class Data(NamedTuple):
    users: list[User]
    events: list[Placed]


class _File(msgspec.Struct):
    users: list[msgspec.Raw]
    events: list[msgspec.Raw]


_file = msgspec.json.Decoder(_File)


def parse(body: bytes) -> Data:
    """What a file holds. `null` counts as absent and ids may be numbers, as from an upstream.

    Raises DataFault.
    """
    try:
        records = _file.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataFault(f"$: must be an object with users and events ({error})") from error
    users = [_decoded(USER, raw, f"$.users[{n}]") for n, raw in enumerate(records.users)]
    events = [_decoded(EVENT, raw, f"$.events[{n}]") for n, raw in enumerate(records.events)]
    return checked(users, events)


async def read_api(api: Source, *, at_once: int) -> Data:
    """All that an events API holds; an event that a user lists and the list of events lacks is
    asked for by its id.

    Raises DataFault, and what the API raises.
    """
    users, events = await api.users(), await api.events()
    there = {event.id for event in events}
    missing = [each for user in users for each in user.events if each not in there]
    events += await fan_out(api.event, missing, limit=at_once)
    return checked(users, events)


def checked(users: Sequence[User], events: Sequence[Event]) -> Data:
    """The records with the place of each event among its user's. Raises DataFault."""
    places: dict[str, tuple[str, int]] = {}
    known: set[str] = set()
    for n, user in enumerate(users):
        _check(f"$.users[{n}]", known, user.id, user.name)
        for place, event_id in enumerate(user.events):
            places.setdefault(event_id, (user.id, place))
    placed: list[Placed] = []
    seen: set[str] = set()
    for n, event in enumerate(events):
        _check(f"$.events[{n}]", seen, event.id, event.title, event.description)
        listed_by, place = places.get(event.id, (event.userId, ADDED))
        if event.userId not in known:
            raise DataFault(f"$.events[{n}].userId: there is no user {event.userId!r}")
        if listed_by != event.userId:
            raise DataFault(f"$.events[{n}].userId: {event.userId!r}, but {listed_by!r} lists it")
        placed.append(Placed(event, place))
    _check_lists(users, seen)
    return Data(list(users), placed)


def _check_lists(users: Sequence[User], there: set[str]) -> None:
    for n, user in enumerate(users):
        for m, event_id in enumerate(user.events):
            if event_id not in there:
                raise DataFault(f"$.users[{n}].events[{m}]: there is no event {event_id!r}")


def written(users: Iterable[User], events: Iterable[Event]) -> Iterator[bytes]:
    """The file, piece by piece."""
    yield b'{"users":['
    for n, user in enumerate(users):
        yield (b",\n" if n else b"\n") + _encode(user)
    yield b'],\n"events":['
    for n, event in enumerate(events):
        yield (b",\n" if n else b"\n") + _encode(event)
    yield b"]}\n"


def _decoded(shape: Shape[T | None, Any], raw: msgspec.Raw, path: str) -> T:
    try:
        record = shape.decode("import", bytes(raw))
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
    known.add(record_id)

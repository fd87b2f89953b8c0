"""Users and events in a database of our own: what the two dialects share.

Each operation is one statement, but for a new event, which is one transaction: its idempotency
key, then the event. Rows go in through `import_data` and `add_event` alone, so what is read back is
valid.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from event_service.errors import UpstreamNotFound, UserNotFound
from event_service.models import Event, NewEvent, User
from event_service.sources.guarded import Source

COMPONENT = "events"
# Place of an event that was added: after all that were imported.
ADDED = 1 << 40

# Parameters are `{}` here: each dialect has a mark of its own.
USERS = "SELECT id, name, {events} FROM users ORDER BY seq"
USER = "SELECT id, name, {events} FROM users WHERE id = {p}"
EVENTS = "SELECT id, user_id, title, description FROM events ORDER BY seq"
EVENT = "SELECT id, user_id, title, description FROM events WHERE id = {p}"
# No row: no such user. One row of NULLs: no events.
EVENTS_OF = (
    "SELECT e.id, e.user_id, e.title, e.description FROM users u"
    " LEFT JOIN events e ON e.user_id = u.id WHERE u.id = {p} ORDER BY e.place, e.seq"
)
FIND_KEY = "SELECT event_id, fingerprint FROM idempotency_keys WHERE key = {p}"
ADD_KEY = (
    "INSERT INTO idempotency_keys (key, event_id, fingerprint, added_at)"
    " VALUES ({p}, {p}, {p}, {p}) ON CONFLICT (key) DO NOTHING"
)
HAS_USER = "SELECT 1 FROM users WHERE id = {p}"
ADD_EVENT = (
    "INSERT INTO events (id, user_id, place, title, description) VALUES ({p}, {p}, {p}, {p}, {p})"
    " ON CONFLICT (id) DO NOTHING"
)
PUT_USER = (
    "INSERT INTO users (id, name) VALUES ({p}, {p})"
    " ON CONFLICT (id) DO UPDATE SET name = excluded.name"
)
PUT_EVENT = (
    "INSERT INTO events (id, user_id, place, title, description) VALUES ({p}, {p}, {p}, {p}, {p})"
    " ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, place = excluded.place,"
    " title = excluded.title, description = excluded.description"
)

Row = Sequence[Any]


class Placed(msgspec.Struct, frozen=True):
    """An event and its place among its user's."""

    event: Event
    place: int


class Database(Source, Protocol):
    """What import and export, the migrations and the service need of a database."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def migrate(self) -> list[str]: ...
    async def import_data(self, users: Iterable[User], events: Iterable[Placed]) -> None: ...
    async def events_of(self, user_id: str) -> list[Event]: ...


def event_of(row: Row) -> Event:
    return Event(row[0], row[1], row[2], row[3])


def events_of(user_id: str, rows: Sequence[Row]) -> list[Event]:
    """What EVENTS_OF found. Raises UserNotFound."""
    if not rows:
        raise UserNotFound(user_id)
    if rows[0][0] is None:
        return []
    return [event_of(row) for row in rows]


def the_user(user_id: str, rows: Sequence[Row]) -> Row:
    if not rows:
        raise UserNotFound(user_id)
    return rows[0]


def the_event(rows: Sequence[Row]) -> Event:
    if not rows:
        raise UpstreamNotFound(
            "getEventById", "There is no event with this id.", reason="no such event"
        )
    return event_of(rows[0])


def fingerprint(event: NewEvent) -> bytes:
    """The same for the same event, whatever fields its sender left out."""
    fields = [event.userId, event.title, event.description or ""]
    return hashlib.blake2b(msgspec.json.encode(fields), digest_size=16).digest()

"""Users and events in our own database: what SQLite and PostgreSQL share.

Each read is one statement. A new event is one transaction: its idempotency key, then the event.
Only `import_data` and `add_event` write rows, so what is read back is valid.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from event_service.errors import UpstreamConflict, UpstreamNotFound, UserNotFound
from event_service.models import Event, NewEvent, User
from event_service.sources.guarded import Source

COMPONENT = "events"
# The place of an added event: after all imported ones.
ADDED = 1 << 40


class Statements(NamedTuple):
    """All statements; `events_of` reads a user's events."""

    users: str
    user: str
    events: str
    event: str
    events_of: str
    find_key: str
    add_key: str
    has_user: str
    add_event: str
    put_user: str
    put_event: str
    size: str


def statements(p: str, event_ids: str) -> Statements:
    """The statements in one dialect.

    `p` is its parameter placeholder, `event_ids` an expression for a user's list of event ids.
    """
    users = f"SELECT id, name, {event_ids} FROM users"
    events = "SELECT id, user_id, title, description FROM events"
    insert_event = (
        "INSERT INTO events (id, user_id, place, title, description)"
        f" VALUES ({p}, {p}, {p}, {p}, {p}) ON CONFLICT (id)"
    )
    return Statements(
        users=f"{users} ORDER BY seq",
        user=f"{users} WHERE id = {p}",
        events=f"{events} ORDER BY seq",
        event=f"{events} WHERE id = {p}",
        # No row: no such user. One row of NULLs: no events.
        events_of=(
            "SELECT e.id, e.user_id, e.title, e.description FROM users u"
            f" LEFT JOIN events e ON e.user_id = u.id WHERE u.id = {p} ORDER BY e.place, e.seq"
        ),
        find_key=f"SELECT event_id, fingerprint FROM idempotency_keys WHERE key = {p}",
        add_key=(
            "INSERT INTO idempotency_keys (key, event_id, fingerprint, added_at)"
            f" VALUES ({p}, {p}, {p}, {p}) ON CONFLICT (key) DO NOTHING"
        ),
        has_user=f"SELECT 1 FROM users WHERE id = {p}",
        add_event=f"{insert_event} DO NOTHING",
        put_user=(
            f"INSERT INTO users (id, name) VALUES ({p}, {p})"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        ),
        put_event=(
            f"{insert_event} DO UPDATE SET user_id = excluded.user_id, place = excluded.place,"
            " title = excluded.title, description = excluded.description"
        ),
        size="SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM events)",
    )


Row = Sequence[Any]


class Placed(msgspec.Struct, frozen=True):
    """An event and its place in its user's list."""

    event: Event
    place: int


class Database(Source, Protocol):
    """What import and export, the migrations and the service need of a database."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def migrate(self) -> list[str]: ...
    async def import_data(self, users: Iterable[User], events: Iterable[Placed]) -> None:
        """Store all users, then all events; a record with a known id replaces the old one.

        The iterators are read record by record. If one raises, nothing is stored.
        """

    async def count(self) -> int:
        """The number of users plus events."""

    def everything(self) -> AsyncIterator[User | Event]:
        """All users, then all events, from one snapshot, read as they are consumed.

        For commands only: it may block the event loop.
        """

    async def events_of(self, user_id: str) -> list[Event]: ...


def event_of(row: Row) -> Event:
    return Event(row[0], row[1], row[2], row[3])


def events_of(user_id: str, rows: Sequence[Row]) -> list[Event]:
    """The events in the rows of `SQL.events_of`. Raises UserNotFound."""
    if not rows:
        raise UserNotFound(user_id)
    if rows[0][0] is None:
        return []
    return [event_of(row) for row in rows]


def user_values(user: User) -> tuple[str, str]:
    """The parameters of `put_user`."""
    return user.id, user.name


def placed_values(placed: Placed) -> tuple[str, str, int, str, str]:
    """The parameters of `put_event`."""
    event = placed.event
    return event.id, event.userId, placed.place, event.title, event.description


def added_values(event: NewEvent, event_id: str) -> tuple[str, str, int, str, str]:
    """The parameters of `add_event`."""
    return event_id, event.userId, ADDED, event.title, event.description or ""


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


def conflict(operation: str, reason: str) -> UpstreamConflict:
    """For a constraint that an operator added, or a user who was deleted meanwhile."""
    return UpstreamConflict(
        operation, "The database refused the event because of a constraint.", reason=reason
    )


def fingerprint(event: NewEvent) -> bytes:
    """A hash of the event; an omitted field hashes like its default."""
    fields = [event.userId, event.title, event.description or ""]
    return hashlib.blake2b(msgspec.json.encode(fields), digest_size=16).digest()

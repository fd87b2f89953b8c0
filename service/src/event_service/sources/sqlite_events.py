import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple

import apsw
import msgspec

from event_service.errors import (
    IdempotencyKeyReused,
    UpstreamConflict,
    UpstreamFailed,
    UserNotFound,
)
from event_service.libs import migrations
from event_service.libs.group_commit import GroupCommit
from event_service.libs.sqlite import SqliteThread, SqliteUnusable, connect, path_of
from event_service.models import Event, NewEvent, User
from event_service.sources import sql_events as sql
from event_service.sources.sql_events import Placed, Row

MIGRATIONS = "event_service.sources.migrations_sqlite"

SQL = sql.statements(
    "?",
    "(SELECT json_group_array(id) FROM"
    " (SELECT id FROM events WHERE user_id = users.id ORDER BY place, seq))",
)
_ids = msgspec.json.Decoder(list[str])


class _Addition(NamedTuple):
    event: NewEvent
    event_id: str
    key: str


class SqliteEvents:
    """Users and events in an SQLite file; a source for one machine.

    A single user or event is read on the event loop, because a lookup takes less time than a
    thread switch. Lists are read in a thread, which stops when the reader gives up. One thread
    writes; writes that arrive during a commit share the next one.

    Raises UpstreamFailed for every error of SQLite. Use from one event loop.
    """

    def __init__(self, url: str, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Raises ValueError for a URL that names no file; see `libs.sqlite.path_of`."""
        self._path = path_of(url)
        self._wall_clock = wall_clock
        self._reader: apsw.Connection | None = None
        self._lists = SqliteThread(self._connect)
        self._writer = SqliteThread(self._connect)
        self._additions: GroupCommit[_Addition, str] = GroupCommit(self._add_all)

    async def open(self) -> None:
        """Create or migrate the file. Raises SqliteUnusable and MigrationError."""
        await self.migrate()
        self._reader = self._connect()

    async def close(self) -> None:
        await self._additions.drain()
        await self._writer.stop()
        await self._lists.stop()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def migrate(self) -> list[str]:
        """Apply the missing migrations and return their names."""
        todo = migrations.load(MIGRATIONS)
        return await self._writer.run(migrations.migrate_sqlite, sql.COMPONENT, todo)

    async def users(self) -> list[User]:
        rows = await self._list("getUsers", SQL.users)
        return [_user(row) for row in rows]

    async def user(self, user_id: str) -> User:
        return _user(sql.the_user(user_id, self._find("getUserById", SQL.user, user_id)))

    async def events(self) -> list[Event]:
        rows = await self._list("getEvents", SQL.events)
        return [sql.event_of(row) for row in rows]

    async def event(self, event_id: str) -> Event:
        return sql.the_event(self._find("getEventById", SQL.event, event_id))

    async def events_of(self, user_id: str) -> list[Event]:
        return sql.events_of(user_id, self._find("getEventsByUserId", SQL.events_of, user_id))

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the event is stored: ours, or that of an earlier attempt.

        Raises UserNotFound, and IdempotencyKeyReused if the key belongs to a different event.
        """
        try:
            return await self._additions.submit(_Addition(event, event_id, idempotency_key))
        except (apsw.Error, SqliteUnusable) as error:
            raise _failed("addEvent", error) from error

    async def import_data(self, users: Iterable[User], events: Iterable[Placed]) -> None:
        await self._writer.run(_import, users, events)

    async def count(self) -> int:
        return await self._lists.run(_count)

    async def everything(self) -> AsyncIterator[User | Event]:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            for row in connection.execute(SQL.users):
                yield _user(row)
            for row in connection.execute(SQL.events):
                yield sql.event_of(row)

    def _connect(self) -> apsw.Connection:
        return connect(self._path, synchronous="FULL")

    def _find(self, operation: str, statement: str, key: str) -> Sequence[Row]:
        try:
            if self._reader is None:
                self._reader = self._connect()
            return self._reader.execute(statement, (key,)).fetchall()
        except (apsw.Error, SqliteUnusable) as error:
            raise _failed(operation, error) from error

    async def _list(self, operation: str, statement: str) -> Sequence[Row]:
        reading: list[apsw.Connection] = []

        def read(connection: apsw.Connection) -> Sequence[Row]:
            reading.append(connection)
            try:
                return connection.execute(statement).fetchall()
            finally:
                reading.clear()

        try:
            return await self._lists.run(read)
        except (apsw.Error, SqliteUnusable) as error:
            raise _failed(operation, error) from error
        finally:
            # The thread still reads only if its reader gave up.
            for connection in reading:
                connection.interrupt()

    async def _add_all(self, additions: Sequence[_Addition]) -> Sequence[str | Exception]:
        return await self._writer.run(
            partial(_add_all, additions=additions, now=self._wall_clock())
        )


def _add_all(
    connection: apsw.Connection, *, additions: Sequence[_Addition], now: float
) -> list[str | Exception]:
    """Add all events in one transaction; one that is refused does not affect the others."""
    outcomes: list[str | Exception] = []
    with _writing(connection):
        for addition in additions:
            try:
                outcomes.append(_add(connection, addition, now))
            except (UserNotFound, IdempotencyKeyReused, UpstreamConflict) as refused:
                outcomes.append(refused)
    return outcomes


def _add(connection: apsw.Connection, addition: _Addition, now: float) -> str:
    event, event_id, key = addition
    known = connection.execute(SQL.find_key, (key,)).fetchone()
    print_of_it = sql.fingerprint(event)
    if known is not None:
        if known[1] != print_of_it:
            raise IdempotencyKeyReused
        return str(known[0])
    if connection.execute(SQL.has_user, (event.userId,)).fetchone() is None:
        raise UserNotFound(event.userId)
    try:
        # Before its key: if this fails, the key is not stored either.
        connection.execute(SQL.add_event, sql.added_values(event, event_id))
    except apsw.ConstraintError as error:
        raise sql.conflict("addEvent", str(error)) from error
    connection.execute(SQL.add_key, (key, event_id, print_of_it, now))
    return event_id


def _count(connection: apsw.Connection) -> int:
    number: int = connection.execute(SQL.size).get
    return number


def _import(connection: apsw.Connection, users: Iterable[User], events: Iterable[Placed]) -> None:
    with _writing(connection):
        connection.executemany(SQL.put_user, map(sql.user_values, users))
        connection.executemany(SQL.put_event, map(sql.placed_values, events))


@contextmanager
def _writing(connection: apsw.Connection) -> Iterator[None]:
    """A write transaction: committed at the end, rolled back after an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _user(row: Row) -> User:
    return User(row[0], row[1], _ids.decode(row[2]))


def _failed(operation: str, error: Exception) -> UpstreamFailed:
    return UpstreamFailed(
        operation, "The database failed.", reason=f"{type(error).__name__}: {error}"
    )

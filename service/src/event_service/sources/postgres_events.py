import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import psycopg
from psycopg import errors as pg
from psycopg_pool import PoolTimeout, TooManyRequests

from event_service.errors import (
    IdempotencyKeyReused,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamTimeout,
    UserNotFound,
)
from event_service.libs import migrations
from event_service.libs.group_commit import GroupCommit
from event_service.libs.postgres import Connection, build_pool, fetch, refuse_old_server
from event_service.models import Event, NewEvent, User
from event_service.sources import sql_events as sql
from event_service.sources.sql_events import Placed, Row

MIGRATIONS = "event_service.sources.migrations_postgres"
# Statements at a time that read users' events. Requests that arrive meanwhile share the next one.
READERS = 4
# A transaction that PostgreSQL rolled back because of another may be tried again at once.
TRIES = 3

SQL = sql.statements(
    "%s", "ARRAY(SELECT e.id FROM events e WHERE e.user_id = users.id ORDER BY e.place, e.seq)"
)

# As `SQL.events_of`, for any number of users, with the user's id in each row. `OFFSET 0` forces an
# index lookup for each user; otherwise the plan for many users might scan the whole table.
EVENTS_OF_USERS = """
SELECT u.id, e.id, e.title, e.description FROM users u
LEFT JOIN LATERAL (SELECT * FROM events WHERE user_id = u.id OFFSET 0) e ON true
WHERE u.id = ANY(%s) ORDER BY e.place, e.seq"""


class PostgresEvents:
    """Users and events in PostgreSQL; a source for any number of machines.

    Raises UpstreamFailed if there is no server or no free connection, UpstreamBroken if the
    connection broke during a statement, UpstreamTimeout if a statement took too long.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        timeout: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`timeout`, in seconds, limits connecting, waiting for a connection and each statement.

        Raises ValueError for a URL that libpq cannot read.
        """
        self._wall_clock = wall_clock
        self._migrated = False
        self._migrating = asyncio.Lock()
        self._lookups: GroupCommit[str, list[Event]] = GroupCommit(
            self._events_of_users, max_batch=64, at_once=min(READERS, connections)
        )
        self._pool = build_pool(
            url, max_size=connections, timeout=timeout, statement_timeout=timeout, checked=False
        )

    async def open(self) -> None:
        """Migrate the database. If it cannot be reached now, the first call that does migrates it.

        Raises PostgresUnusable and MigrationError.
        """
        try:
            await self.migrate()
        except (psycopg.OperationalError, psycopg.InterfaceError):
            return

    async def close(self) -> None:
        await self._lookups.drain()
        await self._pool.close()

    async def migrate(self) -> list[str]:
        """Apply the missing migrations and return their names.

        Raises as `open`, and psycopg.Error if the database cannot be reached.
        """
        if self._pool.closed:
            await self._pool.open()
        async with self._pool.connection() as connection:
            refuse_old_server(connection)
            todo = migrations.load(MIGRATIONS)
            applied = await migrations.migrate_postgres(connection, sql.COMPONENT, todo)
        self._migrated = True
        return applied

    async def users(self) -> list[User]:
        return [_user(row) for row in await self._read("getUsers", SQL.users)]

    async def user(self, user_id: str) -> User:
        rows = await self._read("getUserById", SQL.user, user_id)
        return _user(sql.the_user(user_id, rows))

    async def events(self) -> list[Event]:
        return [sql.event_of(row) for row in await self._read("getEvents", SQL.events)]

    async def event(self, event_id: str) -> Event:
        return sql.the_event(await self._read("getEventById", SQL.event, event_id))

    async def events_of(self, user_id: str) -> list[Event]:
        if "\0" in user_id:
            raise UserNotFound(user_id)
        return await self._lookups.submit(user_id)

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the event is stored: ours, or that of an earlier attempt.

        Raises UserNotFound, and IdempotencyKeyReused if the key belongs to a different event.
        """
        if "\0" in event.userId:
            raise UserNotFound(event.userId)
        for left in reversed(range(TRIES)):
            try:
                async with self._connection("addEvent") as connection, connection.transaction():
                    return await self._add(connection, event, event_id, idempotency_key)
            except UpstreamFailed as error:
                rolled_back = isinstance(
                    error.__cause__, pg.DeadlockDetected | pg.SerializationFailure
                )
                if not rolled_back or not left:
                    raise
        raise AssertionError("unreachable")

    async def import_data(self, users: Iterable[User], events: Iterable[Placed]) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            # It may take longer than a request may.
            await connection.execute("SET LOCAL statement_timeout = 0")
            cursor = connection.cursor()
            await cursor.executemany(SQL.put_user.encode(), map(sql.user_values, users))
            await cursor.executemany(SQL.put_event.encode(), map(sql.placed_values, events))

    async def count(self) -> int:
        async with self._pool.connection() as connection:
            ((number,),) = await fetch(connection, SQL.size)
            return int(number)

    async def everything(self) -> AsyncIterator[User | Event]:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # It may take longer than a request may.
            await connection.execute("SET LOCAL statement_timeout = 0")
            # Server-side cursors, so that the rows arrive in parts.
            async with connection.cursor("users") as rows:
                await rows.execute(SQL.users.encode())
                async for row in rows:
                    yield _user(row)
            async with connection.cursor("events") as rows:
                await rows.execute(SQL.events.encode())
                async for row in rows:
                    yield sql.event_of(row)

    async def _add(self, connection: Connection, event: NewEvent, event_id: str, key: str) -> str:
        print_of_it = sql.fingerprint(event)
        # The key comes first: of two concurrent writes, the second waits here for the first.
        values = (key, event_id, print_of_it, self._wall_clock())
        added = await connection.execute(SQL.add_key.encode(), values)
        if not added.rowcount:
            known = await fetch(connection, SQL.find_key, (key,))
            if not known or bytes(known[0][1]) != print_of_it:
                raise IdempotencyKeyReused
            return str(known[0][0])
        if not await fetch(connection, SQL.has_user, (event.userId,)):
            raise UserNotFound(event.userId)
        await connection.execute(SQL.add_event.encode(), sql.added_values(event, event_id))
        return event_id

    async def _events_of_users(self, users: Sequence[str]) -> list[list[Event] | Exception]:
        found: dict[str, list[Event]] = {}
        for user_id, event_id, title, description in await self._read(
            "getEventsByUserId", EVENTS_OF_USERS, list(users)
        ):
            events = found.setdefault(user_id, [])
            if event_id is not None:
                events.append(Event(event_id, user_id, title, description))
        return [found[each] if each in found else UserNotFound(each) for each in users]

    async def _read(
        self, operation: str, statement: str, *values: str | list[str]
    ) -> Sequence[Row]:
        if any("\0" in value for value in values):
            # PostgreSQL refuses NUL in a parameter, and no stored text contains it.
            return ()
        async with self._connection(operation) as connection:
            # Prepared on first use: planning each time would cost as much as the lookup.
            cursor = await connection.execute(statement.encode(), values, prepare=True)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _connection(self, operation: str) -> AsyncIterator[Connection]:
        with _translated(operation):
            if not self._migrated:
                async with self._migrating:
                    if not self._migrated:
                        await self.migrate()
            async with self._pool.connection() as connection:
                yield connection


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    try:
        yield
    except (PoolTimeout, TooManyRequests) as error:
        raise UpstreamFailed(
            operation, "The database could not be reached.", reason="no connection in time"
        ) from error
    except pg.QueryCanceled as error:
        raise UpstreamTimeout(
            operation, "The database did not answer in time.", reason="timeout: no reply in time"
        ) from error
    except (pg.DeadlockDetected, pg.SerializationFailure) as error:
        raise UpstreamFailed(
            operation, "The database gave up the transaction.", reason=type(error).__name__
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        # The server's message may contain its address, but never stored data.
        raise UpstreamBroken(
            operation, "The connection to the database broke.", reason=type(error).__name__
        ) from error
    except psycopg.IntegrityError as error:
        raise sql.conflict(operation, type(error).__name__) from error
    except psycopg.Error as error:
        raise UpstreamFailed(
            operation,
            "The database failed.",
            reason=f"{type(error).__name__}, SQLSTATE {error.sqlstate}",
        ) from error


def _user(row: Row) -> User:
    return User(row[0], row[1], row[2])

"""Numbered SQL files that bring a database to the shape that a program needs.

A file is named `0001_what_it_does.sql`; numbers begin at 1 and leave no gap. What has been applied
is kept with its checksum in the table `schema_migrations`, one history for each component that
has tables of its own in the database.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import apsw
    import psycopg

_named = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z").match
# Any number that nobody else locks in the same database.
_POSTGRES_LOCK = 0x6576_656E_7473_7663


class MigrationError(Exception):
    """The database and the program do not belong together; the text says why."""


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        # Line ends are not what a migration does.
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


def load(package: str) -> list[Migration]:
    """The migrations among a package's files, in their order.

    Raises MigrationError if their numbers have a gap or appear twice.
    """
    found = []
    for each in files(package).iterdir():
        name = _named(each.name)
        if name:
            found.append(Migration(int(name[1]), name[2], each.read_text(encoding="utf-8")))
    found.sort()
    if [each.number for each in found] != list(range(1, len(found) + 1)):
        numbers = ", ".join(f"{each.number:04}" for each in found)
        raise MigrationError(f"the migrations of {package} must be 0001, 0002, …, not {numbers}")
    return found


def missing(
    component: str, migrations: Sequence[Migration], applied: Mapping[int, str]
) -> list[Migration]:
    """Those that are not applied yet; `applied` has the checksum of each number.

    Raises MigrationError if one was changed after it was applied, or the database has more than
    the program knows.
    """
    for each in migrations:
        if applied.get(each.number, each.checksum) != each.checksum:
            raise MigrationError(
                f"migration {each.number:04}_{each.name} of {component} was changed after it was"
                " applied; add another one instead"
            )
    if len(applied) > len(migrations):
        raise MigrationError(
            f"the database has {len(applied)} migrations of {component}, this program knows"
            f" {len(migrations)}: it is older than the database"
        )
    return [each for each in migrations if each.number not in applied]


def migrate_sqlite(
    connection: "apsw.Connection", component: str, migrations: Sequence[Migration]
) -> list[str]:
    """Apply what is missing in one transaction, under SQLite's own lock; the names of those.

    Raises MigrationError, and apsw.Error if a statement fails: then nothing is applied.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE)
        rows = connection.execute(_APPLIED.format("?"), (component,)).fetchall()
        todo = missing(component, migrations, _checksums(rows))
        for each in todo:
            connection.execute(each.sql)
            values = (component, each.number, each.name, each.checksum, time.time())
            connection.execute(_INSERT.format(*"?????"), values)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [each.name for each in todo]


async def migrate_postgres(
    connection: "psycopg.AsyncConnection[tuple[object, ...]]",
    component: str,
    migrations: Sequence[Migration],
) -> list[str]:
    """Apply what is missing in one transaction, under an advisory lock; the names of those.

    Raises MigrationError, and psycopg.Error if a statement fails: then nothing is applied.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_POSTGRES_LOCK,))
        await connection.execute(_TABLE)
        rows = await (await connection.execute(_APPLIED.format("%s"), (component,))).fetchall()
        todo = missing(component, migrations, _checksums(rows))
        for each in todo:
            # Without parameters several statements may go at once.
            await connection.execute(each.sql.encode())
            values = (component, each.number, each.name, each.checksum, time.time())
            await connection.execute(_INSERT.format(*["%s"] * 5), values)
    return [each.name for each in todo]


def _checksums(rows: Iterable[tuple[Any, ...]]) -> dict[int, str]:
    return {number: checksum for number, checksum in rows}  # noqa: C416  says what they are


_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    component TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (component, number)
)"""
_APPLIED = "SELECT number, checksum FROM schema_migrations WHERE component = {}"
_INSERT = (
    "INSERT INTO schema_migrations (component, number, name, checksum, applied_at)"
    " VALUES ({}, {}, {}, {}, {})"
)

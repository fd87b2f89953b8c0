"""Numbered SQL files that bring a database to the schema a program needs.

A file is named `0001_what_it_does.sql`; numbers start at 1 without gaps. The table
`schema_migrations` records each applied file and its checksum, separately for each component with
tables in the database.
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
# Arbitrary, but unique among advisory locks in the database.
_POSTGRES_LOCK = 0x6576_656E_7473_7663


class MigrationError(Exception):
    """The database and the program do not match; the text says why."""


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        # Line ends do not change a migration's meaning.
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


def load(package: str) -> list[Migration]:
    """The migrations among a package's files, in order.

    Raises MigrationError if a number is missing or appears twice.
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
    """The migrations not yet applied; `applied` maps numbers to checksums.

    Raises MigrationError if an applied migration was changed since, or if the database has one that
    the program does not know.
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
    """Apply missing migrations in one transaction, under SQLite's own lock; returns their names.

    Where nothing is missing no lock is needed. Raises MigrationError, and apsw.Error if a
    statement fails; nothing is applied then.
    """

    def todo() -> list[Migration]:
        rows = connection.execute(_APPLIED.format("?"), (component,)).fetchall()
        return missing(component, migrations, _checksums(rows))

    if connection.table_exists(None, "schema_migrations") and not todo():
        return []
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE)
        applying = todo()
        for each in applying:
            connection.execute(each.sql)
            values = (component, each.number, each.name, each.checksum, time.time())
            connection.execute(_INSERT.format(*"?????"), values)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [each.name for each in applying]


async def migrate_postgres(
    connection: "psycopg.AsyncConnection[tuple[object, ...]]",
    component: str,
    migrations: Sequence[Migration],
) -> list[str]:
    """Apply missing migrations in one transaction, under an advisory lock; returns their names.

    Raises MigrationError, and psycopg.Error if a statement fails; nothing is applied then.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_POSTGRES_LOCK,))
        await connection.execute(_TABLE)
        rows = await (await connection.execute(_APPLIED.format("%s"), (component,))).fetchall()
        todo = missing(component, migrations, _checksums(rows))
        for each in todo:
            # psycopg allows several statements at once only without parameters.
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

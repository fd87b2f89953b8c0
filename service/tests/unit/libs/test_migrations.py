import asyncio
import threading

import apsw
import psycopg
import pytest

from event_service.libs.migrations import (
    Migration,
    MigrationError,
    load,
    migrate_postgres,
    migrate_sqlite,
    missing,
)

pytestmark = pytest.mark.anyio

ONE = Migration(
    1, "things", "CREATE TABLE thing (id INTEGER PRIMARY KEY); CREATE TABLE b (x INTEGER);"
)
TWO = Migration(2, "more", "ALTER TABLE thing ADD COLUMN name TEXT;")
BROKEN = Migration(2, "broken", "CREATE TABLE half (x INTEGER); SELECT no_such_column FROM thing;")


def test_only_what_is_missing_is_applied(tmp_path):
    connection = apsw.Connection(str(tmp_path / "x.db"))
    assert migrate_sqlite(connection, "a", [ONE]) == ["things"]
    assert migrate_sqlite(connection, "a", [ONE, TWO]) == ["more"]
    assert migrate_sqlite(connection, "a", [ONE, TWO]) == []
    connection.execute("INSERT INTO thing (name) VALUES ('x')")


def test_where_nothing_is_missing_nobody_is_waited_for(tmp_path):
    connection = apsw.Connection(str(tmp_path / "x.db"))
    connection.pragma("journal_mode", "wal")
    migrate_sqlite(connection, "a", [ONE])
    with apsw.Connection(str(tmp_path / "x.db")) as other:
        other.execute("INSERT INTO thing DEFAULT VALUES")
        assert migrate_sqlite(connection, "a", [ONE]) == []
        with pytest.raises(apsw.BusyError):
            migrate_sqlite(connection, "a", [ONE, TWO])


def test_components_have_histories_of_their_own(tmp_path):
    connection = apsw.Connection(str(tmp_path / "x.db"))
    migrate_sqlite(connection, "a", [ONE])
    other = Migration(1, "others", "CREATE TABLE other (x INTEGER);")
    assert migrate_sqlite(connection, "b", [other]) == ["others"]


def test_a_failed_migration_leaves_nothing_behind(tmp_path):
    connection = apsw.Connection(str(tmp_path / "x.db"))
    with pytest.raises(apsw.SQLError):
        migrate_sqlite(connection, "a", [ONE, BROKEN])
    assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    assert not connection.in_transaction
    assert migrate_sqlite(connection, "a", [ONE]) == ["things"]


def test_a_changed_migration_is_refused_by_name():
    changed = ONE._replace(sql=ONE.sql + " -- and more")
    with pytest.raises(MigrationError, match="0001_things of outbox was changed"):
        missing("outbox", [changed], {1: ONE.checksum})


def test_different_line_ends_are_not_a_change():
    two_lines = ONE._replace(sql="SELECT 1;\nSELECT 2;\n")
    windows = two_lines._replace(sql=two_lines.sql.replace("\n", "\r\n"))
    assert missing("a", [windows], {1: two_lines.checksum}) == []


def test_a_program_older_than_its_database_is_refused():
    with pytest.raises(MigrationError, match="older than the database"):
        missing("a", [ONE], {1: ONE.checksum, 2: TWO.checksum})


def test_numbers_with_a_gap_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "gapped"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "0001_one.sql").write_text("SELECT 1;")
    (package / "0003_three.sql").write_text("SELECT 3;")
    (package / "notes.txt").write_text("no migration")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MigrationError, match="not 0001, 0003"):
        load("gapped")


def test_workers_that_start_together_apply_each_migration_once(tmp_path):
    results = []

    def start() -> None:
        connection = apsw.Connection(str(tmp_path / "x.db"))
        connection.set_busy_timeout(10_000)
        results.extend(migrate_sqlite(connection, "a", [ONE, TWO]))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results == ["things", "more"]


async def test_postgres_applies_only_what_is_missing(postgres_url):
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        assert await migrate_postgres(connection, "a", [ONE]) == ["things"]
        assert await migrate_postgres(connection, "a", [ONE, TWO]) == ["more"]
        assert await migrate_postgres(connection, "a", [ONE, TWO]) == []
        await connection.execute("INSERT INTO thing (id, name) VALUES (1, 'x')")


async def test_on_postgres_a_failed_migration_leaves_nothing_behind(postgres_url):
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            await migrate_postgres(connection, "a", [ONE, BROKEN])
        tables = await connection.execute("SELECT to_regclass('thing'), to_regclass('half')")
        assert await tables.fetchone() == (None, None)


def test_on_postgres_machines_that_start_together_apply_each_migration_once(postgres_url):
    results = []

    async def start() -> None:
        async with await psycopg.AsyncConnection.connect(
            postgres_url, autocommit=True
        ) as connection:
            results.extend(await migrate_postgres(connection, "a", [ONE, TWO]))

    async def all_at_once() -> None:
        await asyncio.gather(*(start() for _ in range(4)))

    asyncio.run(all_at_once())
    assert results == ["things", "more"]

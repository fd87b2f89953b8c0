import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from event_service.libs import sqlite
from event_service.libs.sqlite import (
    SqliteThread,
    SqliteUnusable,
    connect,
    file_system,
    path_of,
    refuse_network_file_system,
)

MOUNTS = r"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:30 / /srv rw shared:1 - nfs4 server:/srv rw
31 30 8:2 / /srv/local rw - xfs /dev/sdb1 rw
32 22 0:32 / /mnt/a\040share rw - fuse.sshfs host:/ rw
33 22 0:33 / /old rw - cifs //host/old rw
34 22 8:3 / /old rw - btrfs /dev/sdc1 rw
""".lstrip()


@pytest.fixture
def mounts(tmp_path):
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    return file


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///outbox.db", "outbox.db"),
        ("sqlite:///var/outbox.db", "var/outbox.db"),
        ("sqlite:////var/lib/outbox.db", "/var/lib/outbox.db"),
        ("sqlite:///a%20b.db", "a b.db"),
    ],
)
def test_three_slashes_are_relative_and_four_absolute(url, path):
    assert path_of(url) == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///folder/",
        "sqlite://host/file.db",
        "sqlite:///file.db?mode=ro",
        "postgresql:///file.db",
        "file.db",
        "sqlite:///a%00b",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="sqlite:///"):
        path_of(url)


def test_what_makes_a_commit_durable_is_set(tmp_path):
    connection = connect(tmp_path / "x.db")
    found = {
        name: connection.pragma(name)
        for name in (
            "journal_mode",
            "synchronous",
            "fullfsync",
            "checkpoint_fullfsync",
            "busy_timeout",
            "mmap_size",
            "trusted_schema",
        )
    }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 3,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "busy_timeout": 5000,
        "mmap_size": 0,
        "trusted_schema": 0,
    }
    connection.close()


def test_a_setting_that_does_not_hold_is_an_error():
    with pytest.raises(SqliteUnusable, match="journal_mode=memory where wal was set"):
        connect(Path(":memory:"))


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(SqliteUnusable, match=r"nowhere/x\.db cannot be opened"):
        connect(tmp_path / "nowhere" / "x.db")


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("no database at all, but a text that is long enough" * 40)
    with pytest.raises(SqliteUnusable, match="not a database"):
        connect(tmp_path / "x.db")


def test_a_library_with_the_known_fault_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.40.1")
    with pytest.raises(SqliteUnusable, match=r"3\.40\.1 is too old: 3\.51\.3 or newer"):
        connect(tmp_path / "x.db")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x.db", "ext4"),
        ("/srv/x.db", "nfs4"),
        ("/srv/other/x.db", "nfs4"),
        ("/srv/local/x.db", "xfs"),
        ("/srv/locals/x.db", "nfs4"),
        ("/mnt/a share/x.db", "fuse.sshfs"),
        ("/old/x.db", "btrfs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(mounts, path, kind):
    assert file_system(Path(path), mounts) == kind


def test_a_network_file_system_is_refused_by_name(mounts):
    with pytest.raises(SqliteUnusable, match=r"network file system \(nfs4\)"):
        refuse_network_file_system(Path("/srv/x.db"), mounts)
    refuse_network_file_system(Path("/srv/local/x.db"), mounts)


def test_where_the_system_does_not_tell_no_file_system_is_refused(tmp_path):
    refuse_network_file_system(Path("/srv/x.db"), tmp_path / "missing")


def test_the_folder_is_synced_once_the_file_is_there(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(sqlite, "sync_folder", synced.append)
    connect(tmp_path / "x.db").close()
    connect(tmp_path / "x.db").close()
    assert synced == [tmp_path]


async def in_thread(path: Path):
    thread = SqliteThread(lambda: connect(path))
    try:
        await thread.run(lambda db: db.execute("CREATE TABLE t (x)"))
        await asyncio.gather(
            *(
                thread.run(lambda db, n: db.execute("INSERT INTO t VALUES (?)", (n,)), n)
                for n in range(20)
            )
        )
        await thread.close()
        return await thread.run(
            lambda db: (db.execute("SELECT count(*) FROM t").get, threading.current_thread().name)
        )
    finally:
        await thread.stop()


@pytest.mark.anyio
async def test_a_thread_of_its_own_serves_all_tasks_and_opens_again_after_close(tmp_path):
    count, name = await in_thread(tmp_path / "x.db")
    assert count == 20
    assert name.startswith("sqlite")


@pytest.mark.anyio
async def test_a_cancelled_call_runs_to_its_end(tmp_path):
    begun, may_end = threading.Event(), threading.Event()

    def transaction(db: apsw.Connection) -> None:
        db.execute("CREATE TABLE t (x)")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES (1)")
        begun.set()
        may_end.wait(10)
        db.execute("COMMIT")

    thread = SqliteThread(lambda: connect(tmp_path / "x.db"))
    task = asyncio.create_task(thread.run(transaction))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_end.set()
    assert await thread.run(lambda db: db.execute("SELECT count(*) FROM t").get) == 1
    await thread.stop()

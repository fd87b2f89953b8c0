"""What the store of one machine does without room, and with a file that is not what it was."""

import pytest
from torture.fault_vfs import Disk, FaultVFS, failing

from event_service.errors import Overloaded
from event_service.outbox.records import Accepted, State
from event_service.outbox.sqlite_store import SqliteStore
from event_service.outbox.store import LEAST_FREE, StoreFailed

from .stores import Database, entry

pytestmark = pytest.mark.anyio


async def test_nothing_new_is_accepted_when_the_disk_is_nearly_full(tmp_path):
    free = [LEAST_FREE]
    database = Database(tmp_path / "outbox.db")
    async with database.store(free=lambda _folder: free[0]) as store:
        known = entry(id="x", idem_key="k")
        assert [each.new for each in await store.accept([known])] == [True]
        free[0] -= 1
        again, refused = await store.accept([known, entry()])
        assert again == Accepted("x", State.QUEUED, new=False)
        assert isinstance(refused, Overloaded)
        assert refused.retry_after > 0
        free[0] += 1
        assert [each.new for each in await store.accept([entry()])] == [True]


async def test_a_file_that_is_damaged_after_a_failed_write_is_not_written_again(tmp_path):
    path = tmp_path / "outbox.db"
    disk = Disk(simulated=False)
    vfs = FaultVFS("damaged", disk)
    options = {"limit": 1_000, "give_up": 1e6, "vfs": "damaged"}
    store = SqliteStore(path, **options)
    await store.open()
    for _ in range(20):
        await store.accept([entry(body=b"x" * 3_000)])
    await store.close()

    def fail(operation, _path):
        if operation == "sync":
            raise failing("EIO", "sync")

    store = SqliteStore(path, **options)
    await store.open()
    disk.before = fail
    with pytest.raises(StoreFailed):
        await store.accept([entry()])
    disk.before = lambda _operation, _path: None
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 4))
    for _ in range(3):
        with pytest.raises(StoreFailed, match="damaged"):
            await store.accept([entry()])
    await store.close()
    vfs.unregister()

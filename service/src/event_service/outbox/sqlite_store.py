import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from typing import Any, TypeAlias, TypeVar

import apsw
from msgspec.structs import astuple

from event_service.errors import IdempotencyKeyReused, Overloaded
from event_service.libs.group_commit import GroupCommit
from event_service.libs.migrations import MigrationError, load, migrate_sqlite
from event_service.libs.sqlite import (
    SqliteThread,
    SqliteUnusable,
    connect,
    refuse_network_file_system,
    refuse_old_library,
)
from event_service.outbox.records import (
    COLUMNS,
    NEW_COLUMNS,
    Accepted,
    Claim,
    Delivery,
    Figures,
    NewDelivery,
    Progress,
    State,
    Step,
    Then,
    decode,
    progress,
)
from event_service.outbox.room import Room
from event_service.outbox.store import (
    AHEAD,
    KEEP_FAILED,
    LEASE,
    PURGE_BATCH,
    StoreFailed,
    StoreUnusable,
)

T = TypeVar("T")
# One part of a write transaction.
Work: TypeAlias = Callable[[apsw.Connection], Any]


class SqliteStore:
    """Deliveries in an SQLite file, for the processes of one machine.

    One thread writes, another reads. Concurrent writes share one transaction. After a failed write,
    except a wait for a lock, its connection is never used again: data that a failed fsync left in
    the log can be read, but may be lost later. A new connection checkpoints the log into the file
    and verifies that; until this succeeds, the store stays failed.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit: int,
        give_up: float,
        lease: float = LEASE,
        clock: Callable[[], float] = time.time,
        vfs: str | None = None,
        free: Callable[[Path], int] = lambda folder: disk_usage(folder).free,
    ) -> None:
        """`limit`: most queued deliveries. `give_up` and `lease` are in seconds.

        `clock` is Unix time, the same for all processes. `free` returns the free bytes of a folder.
        """
        self._path = path
        self._give_up = give_up
        self._lease = lease
        self._clock = clock
        self._vfs = vfs
        self._free = free
        self._room = Room(limit)
        self._suspect = False
        self._writer = SqliteThread(self._connect)
        self._writes: GroupCommit[Work, Any] = GroupCommit(self._commit)
        self._reader = SqliteThread(lambda: connect(path, vfs=vfs))

    async def open(self) -> list[str]:
        try:
            refuse_old_library()
            refuse_network_file_system(self._path)
            applied = await self._in_writer(_migrate)
        except (SqliteUnusable, MigrationError) as error:
            raise StoreUnusable(str(error)) from error
        return applied

    async def close(self) -> None:
        await self._writes.drain()
        for thread in (self._reader, self._writer):
            with suppress(apsw.Error):
                await thread.stop()

    async def accept(self, entries: Sequence[NewDelivery]) -> list[Accepted | Exception]:
        results = await self._write(self._accept, entries)
        self._room.took(sum(isinstance(each, Accepted) and each.new for each in results))
        return results

    async def claim(self, owner: str, limit: int) -> list[Claim]:
        # Most polls find nothing, so check first without the write lock.
        if not await self._read(_any_due, self._clock()):
            return []
        return await self._write(self._claim, owner, limit)

    async def queued(self, claim: Claim) -> Claim:
        return await self._read(_queued_again, claim)

    async def advance(self, steps: Sequence[Step]) -> list[Progress]:
        return await self._write(self._advance, steps)

    async def find(self, delivery_id: str) -> Delivery | None:
        return await self._read(_find, delivery_id)

    async def figures(self) -> Figures:
        pending, oldest = await self._read(_figures)
        self._room.counted(pending)
        return Figures(pending, max(0.0, self._clock() - oldest) if pending else 0.0)

    async def page(
        self, *, state: State | None, user_id: str | None, before: int | None, limit: int
    ) -> list[Delivery]:
        return await self._read(_page, (state, user_id, before, limit))

    async def retry(self, delivery_id: str) -> bool:
        return await self._write(self._retry, delivery_id)

    async def drop(self, delivery_id: str) -> bool:
        return await self._write(_drop, delivery_id)

    async def purge(self, *, keep: float) -> int:
        return await self._write(_purge, self._clock(), keep)

    def _connect(self) -> apsw.Connection:
        connection = connect(self._path, vfs=self._vfs)
        if self._suspect:
            try:
                _repair(connection)
            except BaseException:
                connection.close()
                raise
            self._suspect = False
        return connection

    async def _write(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work` in a transaction, which concurrent writes share, and return its result."""
        result: T = await self._writes.submit(lambda db: work(db, *args))
        return result

    async def _commit(self, works: Sequence[Work]) -> list[Any]:
        return await self._in_writer(_in_transaction, works)

    async def _in_writer(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await self._writer.run(_call, work, args)
        except apsw.BusyError as error:
            raise StoreFailed(f"the outbox is locked: {error}") from error
        except (apsw.Error, SqliteUnusable, OSError) as error:
            self._suspect = True
            with suppress(apsw.Error):
                await self._writer.close()
            raise StoreFailed(f"the outbox cannot be written: {error}") from error

    async def _read(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await self._reader.run(_call, work, args)
        except (apsw.Error, SqliteUnusable, OSError) as error:
            with suppress(apsw.Error):
                await self._reader.close()
            raise StoreFailed(f"the outbox cannot be read: {error}") from error

    def _accept(
        self, db: apsw.Connection, entries: Sequence[NewDelivery]
    ) -> list[Accepted | Exception]:
        now = self._clock()
        if self._room.must_count(len(entries)):
            self._room.counted(_count(db))
        room = self._room.left()
        if not self._room.enough(self._free(self._path.parent)):
            room = 0
        results: list[Accepted | Exception] = []
        for entry in entries:
            known = _known(db, entry)
            if known is not None:
                results.append(known)
            elif room == 0:
                results.append(Overloaded("The outbox is full.", retry_after=10.0))
            else:
                room -= 1
                db.execute(_INSERT, (*astuple(entry), now, now + self._give_up))
                db.execute(_BUMP, {"user": entry.user_id, "now": now, "token": int(now * 1e6)})
                results.append(Accepted(entry.id, State.QUEUED, new=True))
        return results

    def _claim(self, db: apsw.Connection, owner: str, limit: int) -> list[Claim]:
        now = self._clock()
        due: list[Any] = db.execute(_DUE, (now, now, limit)).fetchall()
        claims = []
        for user_id, token, last_owner in due:
            db.execute(_CLAIM, (owner, now + self._lease, user_id))
            claims.append(_with_queued(db, user_id, token + 1, resumed=last_owner is not None))
        return claims

    def _advance(self, db: apsw.Connection, steps: Sequence[Step]) -> list[Progress]:
        now = self._clock()
        return [self._take(db, step, now) for step in steps]

    def _take(self, db: apsw.Connection, step: Step, now: float) -> Progress:
        lane = db.execute("SELECT tail, token FROM lane WHERE user_id = ?", (step.user_id,)).get
        made = progress(step, lane)
        if made is Progress.FENCED:
            return made
        if made is Progress.LEFT:
            next_at = now + step.rest if step.then is Then.REST else None
            db.execute(
                "UPDATE lane SET owner = NULL, next_at = ? WHERE user_id = ?",
                (next_at, step.user_id),
            )
        else:
            db.execute(
                "UPDATE lane SET lease_until = ? WHERE user_id = ?",
                (now + self._lease, step.user_id),
            )
        if step.outcome is not None:
            each = step.outcome
            finished_at = None if each.state is State.QUEUED else now
            db.execute(
                _OUTCOME,
                (
                    each.state,
                    each.attempts,
                    each.failures,
                    finished_at,
                    each.event_id,
                    each.last_error,
                    each.seq,
                ),
            )
        return made

    def _retry(self, db: apsw.Connection, delivery_id: str) -> bool:
        now = self._clock()
        user_id = db.execute(_REQUEUE, (now + self._give_up, delivery_id)).get
        if user_id is None:
            return False
        db.execute(_BUMP, {"user": user_id, "now": now, "token": int(now * 1e6)})
        return True


def _call(db: apsw.Connection, work: Callable[..., T], args: tuple[Any, ...]) -> T:
    return work(db, *args)


def _in_transaction(db: apsw.Connection, works: Sequence[Work]) -> list[Any]:
    db.execute("BEGIN IMMEDIATE")
    try:
        results = [work(db) for work in works]
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            # It may fail if the disk fails. Closing the connection rolls back, too.
            with suppress(apsw.Error):
                db.execute("ROLLBACK")
        raise
    return results


def _migrate(db: apsw.Connection) -> list[str]:
    return migrate_sqlite(db, "outbox", load("event_service.outbox.migrations_sqlite"))


def _repair(db: apsw.Connection) -> None:
    """Checkpoint the log into the file, and verify that."""
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
    if busy:
        raise apsw.BusyError("the log of a failed write is still in use")
    found = db.execute("PRAGMA quick_check(1)").get
    if found != "ok":
        raise SqliteUnusable(f"the file is damaged: {found}")


def _known(db: apsw.Connection, entry: NewDelivery) -> Accepted | Exception | None:
    if entry.idem_key is None:
        return None
    row = db.execute(
        "SELECT id, state, fingerprint FROM outbox WHERE idem_key = ?", (entry.idem_key,)
    ).get
    if row is None:
        return None
    known_id, state, fingerprint = row
    if fingerprint != entry.fingerprint:
        return IdempotencyKeyReused()
    return Accepted(known_id, State(state), new=False)


def _with_queued(db: apsw.Connection, user_id: str, token: int, *, resumed: bool) -> Claim:
    # Read the tail first: an event accepted between the two reads is read again later, but never
    # missed.
    seen = db.execute("SELECT tail FROM lane WHERE user_id = ?", (user_id,)).get
    rows = db.execute(_QUEUED, (user_id, AHEAD + 1)).fetchall()
    queued = tuple(decode(row) for row in rows[:AHEAD])
    return Claim(user_id, token, seen or 0, queued, len(rows) <= AHEAD, resumed)


def _queued_again(db: apsw.Connection, claim: Claim) -> Claim:
    return _with_queued(db, claim.user_id, claim.token, resumed=claim.resumed)


def _any_due(db: apsw.Connection, now: float) -> bool:
    return db.execute(_DUE, (now, now, 1)).get is not None


def _count(db: apsw.Connection) -> int:
    count: int = db.execute("SELECT count(*) FROM outbox WHERE state = 'queued'").get
    return count


def _figures(db: apsw.Connection) -> tuple[int, float]:
    oldest = db.execute("SELECT min(accepted_at) FROM outbox WHERE state = 'queued'").get
    return _count(db), oldest or 0.0


def _find(db: apsw.Connection, delivery_id: str) -> Delivery | None:
    row = db.execute(f"SELECT {COLUMNS} FROM outbox WHERE id = ?", (delivery_id,)).fetchone()
    return None if row is None else decode(row)


def _page(db: apsw.Connection, wanted: tuple[Any, ...]) -> list[Delivery]:
    state, user_id, before, limit = wanted
    values = {"state": state, "user": user_id, "before": before, "limit": limit}
    return [decode(row) for row in db.execute(_PAGE, values)]


def _drop(db: apsw.Connection, delivery_id: str) -> bool:
    db.execute("DELETE FROM outbox WHERE id = ?", (delivery_id,))
    return db.changes() > 0


def _purge(db: apsw.Connection, now: float, keep: float) -> int:
    purged = 0
    for state, seconds in (("delivered", keep), ("refused", KEEP_FAILED), ("dead", KEEP_FAILED)):
        db.execute(_PURGE, (state, now - seconds, PURGE_BATCH))
        purged += db.changes()
    db.execute(_PURGE_LANES, (now - keep, PURGE_BATCH))
    return purged


_INSERT = f"""
INSERT INTO outbox ({NEW_COLUMNS}, state, accepted_at, give_up_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)"""
# A paused lane stays paused.
_BUMP = """
INSERT INTO lane (user_id, tail, next_at, lease_until, token) VALUES (:user, 1, :now, 0, :token)
ON CONFLICT (user_id) DO UPDATE SET tail = tail + 1, next_at = coalesce(next_at, :now)"""
_DUE = """
SELECT user_id, token, owner FROM lane
WHERE next_at <= ? AND (owner IS NULL OR lease_until <= ?) ORDER BY next_at LIMIT ?"""
_CLAIM = "UPDATE lane SET owner = ?, lease_until = ?, token = token + 1 WHERE user_id = ?"
_QUEUED = f"""
SELECT {COLUMNS} FROM outbox WHERE user_id = ? AND state = 'queued' ORDER BY seq LIMIT ?"""
_OUTCOME = """
UPDATE outbox SET state = ?, attempts = attempts + ?, failures = failures + ?, finished_at = ?,
                  event_id = ?, last_error = ?
WHERE seq = ? AND state = 'queued'"""
_REQUEUE = """
UPDATE outbox SET state = 'queued', failures = 0, finished_at = NULL, give_up_at = ?
WHERE id = ? AND state IN ('refused', 'dead') RETURNING user_id"""
_PAGE = f"""
SELECT {COLUMNS} FROM outbox
WHERE (:state IS NULL OR state = :state) AND (:user IS NULL OR user_id = :user)
  AND (:before IS NULL OR seq < :before)
ORDER BY seq DESC LIMIT :limit"""
_PURGE = """
DELETE FROM outbox WHERE seq IN (
    SELECT seq FROM outbox WHERE state = ? AND finished_at < ? LIMIT ?)"""
# An accept sets `next_at` in the row, so a lane with a queued event is never deleted.
_PURGE_LANES = """
DELETE FROM lane WHERE user_id IN (
    SELECT user_id FROM lane WHERE next_at IS NULL AND owner IS NULL AND lease_until < ? LIMIT ?)"""

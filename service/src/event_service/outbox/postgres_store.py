import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from msgspec.structs import astuple
from psycopg_pool import PoolTimeout

from event_service.errors import IdempotencyKeyReused, Overloaded
from event_service.libs.migrations import MigrationError, load, migrate_postgres
from event_service.libs.postgres import (
    Connection,
    PostgresUnusable,
    build_pool,
    fetch,
    refuse_old_server,
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

# One each for accepts, steps, claims and queries, which run concurrently.
CONNECTIONS = 4
# Seconds: limit for getting a connection, and for a statement.
TIMEOUT = 2.0
STATEMENT_TIMEOUT = 10.0
ATTEMPTS = 5
# Errors after which a transaction was rolled back and may be repeated at once.
AGAIN = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


class PostgresStore:
    """Deliveries in PostgreSQL, for processes on any number of machines.

    Only the server's clock is used. Every writing transaction first locks its lanes, ordered by
    user. So the `seq` values of a lane follow the order of commits, and there are no deadlocks.
    """

    def __init__(self, url: str, *, limit: int, give_up: float, lease: float = LEASE) -> None:
        """`limit`: most queued deliveries. `give_up` and `lease` are in seconds.

        Raises ValueError for a URL that libpq cannot read.
        """
        self._pool = build_pool(
            url,
            max_size=CONNECTIONS,
            timeout=TIMEOUT,
            statement_timeout=STATEMENT_TIMEOUT,
            checked=True,
        )
        self._give_up = give_up
        self._lease = lease
        self._room = Room(limit)

    async def open(self) -> list[str]:
        await self._pool.open()
        try:
            return await self._write(_migrate)
        except (PostgresUnusable, MigrationError) as error:
            raise StoreUnusable(str(error)) from error

    async def close(self) -> None:
        await self._pool.close()

    async def accept(self, entries: Sequence[NewDelivery]) -> list[Accepted | Exception]:
        results = await self._write(self._accept, entries)
        self._room.took(sum(isinstance(each, Accepted) and each.new for each in results))
        return results

    async def claim(self, owner: str, limit: int) -> list[Claim]:
        async def claim(db: Connection) -> list[Claim]:
            due = await fetch(db, _CLAIM, {"owner": owner, "limit": limit, "lease": self._lease})
            return await _with_queued(db, due)

        return await self._write(claim)

    async def queued(self, claim: Claim) -> Claim:
        async def read(db: Connection) -> Claim:
            # Read the tail first: an event accepted between the two reads is read again later, but
            # never missed.
            rows = await fetch(db, "SELECT tail FROM lane WHERE user_id = %s", [claim.user_id])
            seen = rows[0][0] if rows else 0
            lane = (claim.user_id, claim.token, seen, claim.resumed)
            return (await _with_queued(db, [lane]))[0]

        return await self._run(read)

    async def advance(self, steps: Sequence[Step]) -> list[Progress]:
        return await self._write(self._advance, steps)

    async def find(self, delivery_id: str) -> Delivery | None:
        rows = await self._run(fetch, _FIND, [delivery_id])
        return decode(rows[0]) if rows else None

    async def figures(self) -> Figures:
        ((pending, oldest),) = await self._run(fetch, _FIGURES)
        self._room.counted(pending)
        return Figures(pending, oldest)

    async def page(
        self, *, state: State | None, user_id: str | None, before: int | None, limit: int
    ) -> list[Delivery]:
        values = {"state": state, "user": user_id, "before": before, "limit": limit}
        return [decode(row) for row in await self._run(fetch, _PAGE, values)]

    async def retry(self, delivery_id: str) -> bool:
        async def retry(db: Connection) -> bool:
            rows = await fetch(db, _USER_OF, [delivery_id])
            if not rows:
                return False
            await _bump(db, [rows[0][0]])
            values = {"id": delivery_id, "give_up": self._give_up}
            return bool(await fetch(db, _REQUEUE, values))

        return await self._write(retry)

    async def drop(self, delivery_id: str) -> bool:
        dropped = await self._write(
            fetch, "DELETE FROM outbox WHERE id = %s RETURNING 1", [delivery_id]
        )
        return bool(dropped)

    async def purge(self, *, keep: float) -> int:
        async def purge(db: Connection) -> int:
            purged = 0
            for state, seconds in (
                (State.DELIVERED, keep),
                (State.REFUSED, KEEP_FAILED),
                (State.DEAD, KEEP_FAILED),
            ):
                purged += (await db.execute(_PURGE, (state, seconds, PURGE_BATCH))).rowcount
            await db.execute(_PURGE_LANES, (keep, PURGE_BATCH))
            return purged

        return await self._write(purge)

    async def _write(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        async def transaction(db: Connection) -> T:
            async with db.transaction():
                # The server's default may be to confirm before the data is on disk.
                await db.execute("SET LOCAL synchronous_commit = on")
                return await work(db, *args)

        return await self._run(transaction)

    async def _run(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._pool.connection() as connection:
                    return await work(connection, *args)
            except AGAIN as error:
                if attempt == ATTEMPTS:
                    raise StoreFailed(f"the outbox is contended: {_text(error)}") from error
                await asyncio.sleep(0)
            except (psycopg.Error, PoolTimeout) as error:
                raise StoreFailed(f"the outbox cannot be used: {_text(error)}") from error
        raise AssertionError("unreachable")

    async def _accept(
        self, db: Connection, entries: Sequence[NewDelivery]
    ) -> list[Accepted | Exception]:
        if self._room.must_count(len(entries)):
            ((pending, _),) = await fetch(db, _FIGURES)
            self._room.counted(pending)
        room = self._room.left()
        known = await _known(db, entries)
        new: list[NewDelivery] = []
        keys: set[str] = set()
        for entry in entries:
            if entry.idem_key in known or entry.idem_key in keys or len(new) == room:
                continue
            new.append(entry)
            if entry.idem_key is not None:
                keys.add(entry.idem_key)
        inserted: set[str] = set()
        if new:
            await _bump(db, [entry.user_id for entry in new])
            inserted = await self._insert(db, new)
            # The others have keys that another worker has used since the lookup above.
            known |= await _known(db, [each for each in entries if each.idem_key is not None])
        return [_result(entry, known, inserted) for entry in entries]

    async def _insert(self, db: Connection, entries: Sequence[NewDelivery]) -> set[str]:
        """Store the entries whose keys are new, and return their ids."""
        fields = zip(*map(astuple, entries), strict=True)
        rows = await fetch(db, _INSERT, [self._give_up, *map(list, fields)])
        return {row[0] for row in rows}

    async def _advance(self, db: Connection, steps: Sequence[Step]) -> list[Progress]:
        users = sorted(step.user_id for step in steps)
        rows = await fetch(db, _LOCK, [users])
        lanes = {user_id: (tail, token) for user_id, tail, token in rows}
        made = [progress(step, lanes.get(step.user_id)) for step in steps]
        kept, left, outcomes = [], [], []
        for step, each in zip(steps, made, strict=True):
            if each is Progress.FENCED:
                continue
            if each is Progress.LEFT:
                left.append((step.user_id, step.rest if step.then is Then.REST else None))
            else:
                kept.append(step.user_id)
            if step.outcome is not None:
                outcomes.append(step.outcome)
        if kept:
            await db.execute(_KEEP, (self._lease, kept))
        if left:
            await db.execute(_LEAVE, [list(values) for values in zip(*left, strict=True)])
        if outcomes:
            values = [
                [getattr(each, name) for each in outcomes]
                for name in ("seq", "state", "attempts", "failures", "event_id", "last_error")
            ]
            await db.execute(_OUTCOMES, values)
        return made


def _result(
    entry: NewDelivery, known: dict[str, tuple[str, State, bytes]], inserted: set[str]
) -> Accepted | Exception:
    if entry.id in inserted:
        # A second entry with the same key in one batch finds the first.
        inserted.discard(entry.id)
        return Accepted(entry.id, State.QUEUED, new=True)
    if entry.idem_key is None or entry.idem_key not in known:
        return Overloaded("The outbox is full.", retry_after=10.0)
    delivery_id, state, fingerprint = known[entry.idem_key]
    if fingerprint != entry.fingerprint:
        return IdempotencyKeyReused()
    return Accepted(delivery_id, state, new=False)


async def _known(
    db: Connection, entries: Sequence[NewDelivery]
) -> dict[str, tuple[str, State, bytes]]:
    keys = [entry.idem_key for entry in entries if entry.idem_key is not None]
    if not keys:
        return {}
    rows = await fetch(db, _KNOWN, [keys])
    return {key: (found, State(state), print_) for key, found, state, print_ in rows}


async def _bump(db: Connection, users: Sequence[str]) -> None:
    """Lock the lanes, in the same order as every transaction, and make them due."""
    counts: dict[str, int] = {}
    for user_id in users:
        counts[user_id] = counts.get(user_id, 0) + 1
    ordered = sorted(counts)
    await db.execute(_BUMP, (ordered, [counts[user_id] for user_id in ordered]))


async def _with_queued(db: Connection, lanes: Sequence[Sequence[Any]]) -> list[Claim]:
    if not lanes:
        return []
    queued: dict[str, list[Delivery]] = {lane[0]: [] for lane in lanes}
    for row in await fetch(db, _QUEUED, [list(queued), AHEAD + 1]):
        delivery = decode(row)
        queued[delivery.user_id].append(delivery)
    return [
        Claim(
            user_id,
            token,
            seen,
            tuple(queued[user_id][:AHEAD]),
            len(queued[user_id]) <= AHEAD,
            resumed,
        )
        for user_id, token, seen, resumed in lanes
    ]


async def _migrate(db: Connection) -> list[str]:
    refuse_old_server(db)
    return await migrate_postgres(db, "outbox", load("event_service.outbox.migrations_postgres"))


def _text(error: Exception) -> str:
    """The error on one line. Messages of libpq may contain hosts and users, never passwords."""
    return " ".join(str(error).split()) or type(error).__name__


_NOW = "extract(epoch FROM clock_timestamp())::float8"
_KNOWN = "SELECT idem_key, id, state, fingerprint FROM outbox WHERE idem_key = ANY(%s)"
# A paused lane stays paused. Tokens start with the time in microseconds, so they are higher than
# those of a deleted lane of the same user.
_BUMP = f"""
INSERT INTO lane (user_id, tail, next_at, lease_until, token)
SELECT user_id, added, {_NOW}, 0, ({_NOW} * 1e6)::bigint
FROM unnest(%s::text[], %s::bigint[]) AS new (user_id, added)
ON CONFLICT (user_id) DO UPDATE
SET tail = lane.tail + excluded.tail, next_at = coalesce(lane.next_at, excluded.next_at)""".encode()
_INSERT = f"""
INSERT INTO outbox ({NEW_COLUMNS}, state, accepted_at, give_up_at)
SELECT {NEW_COLUMNS}, 'queued', {_NOW}, {_NOW} + %s
FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::bytea[], %s::text[],
            %s::text[], %s::text[])
    WITH ORDINALITY AS new ({NEW_COLUMNS}, place)
ORDER BY place
ON CONFLICT DO NOTHING
RETURNING id"""
_CLAIM = f"""
WITH due AS (
    SELECT user_id, owner IS NOT NULL AS resumed FROM lane
    WHERE next_at <= {_NOW} AND (owner IS NULL OR lease_until <= {_NOW})
    ORDER BY next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE lane SET owner = %(owner)s, lease_until = {_NOW} + %(lease)s, token = token + 1
FROM due WHERE lane.user_id = due.user_id
RETURNING lane.user_id, lane.token, lane.tail, due.resumed"""
_QUEUED = f"""
SELECT {COLUMNS} FROM unnest(%s::text[]) AS wanted (lane)
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM outbox WHERE user_id = lane AND state = 'queued' ORDER BY seq LIMIT %s
) AS first
ORDER BY seq"""
_LOCK = "SELECT user_id, tail, token FROM lane WHERE user_id = ANY(%s) ORDER BY user_id FOR UPDATE"
_KEEP = f"UPDATE lane SET lease_until = {_NOW} + %s WHERE user_id = ANY(%s)".encode()
_LEAVE = f"""
UPDATE lane SET owner = NULL, next_at = {_NOW} + step.rest
FROM unnest(%s::text[], %s::float8[]) AS step (user_id, rest)
WHERE lane.user_id = step.user_id""".encode()
_OUTCOMES = f"""
UPDATE outbox
SET state = step.state, attempts = outbox.attempts + step.attempts,
    failures = outbox.failures + step.failures, event_id = step.event_id,
    last_error = step.last_error,
    finished_at = CASE WHEN step.state = 'queued' THEN NULL ELSE {_NOW} END
FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::int[], %s::text[], %s::bytea[])
    AS step (seq, state, attempts, failures, event_id, last_error)
WHERE outbox.seq = step.seq AND outbox.state = 'queued'""".encode()
_FIND = f"SELECT {COLUMNS} FROM outbox WHERE id = %s"
_FIGURES = f"""
SELECT count(*), coalesce(greatest({_NOW} - min(accepted_at), 0), 0)
FROM outbox WHERE state = 'queued'"""
_PAGE = f"""
SELECT {COLUMNS} FROM outbox
WHERE (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(user)s::text IS NULL OR user_id = %(user)s)
  AND (%(before)s::bigint IS NULL OR seq < %(before)s)
ORDER BY seq DESC LIMIT %(limit)s"""
_USER_OF = "SELECT user_id FROM outbox WHERE id = %s AND state IN ('refused', 'dead')"
_REQUEUE = f"""
UPDATE outbox SET state = 'queued', failures = 0, finished_at = NULL,
                  give_up_at = {_NOW} + %(give_up)s
WHERE id = %(id)s AND state IN ('refused', 'dead') RETURNING 1"""
_PURGE = f"""
DELETE FROM outbox WHERE seq IN (
    SELECT seq FROM outbox WHERE state = %s AND finished_at < {_NOW} - %s LIMIT %s
    FOR UPDATE SKIP LOCKED)""".encode()
# Safe against a concurrent accept: it sets `next_at` in the row, and the condition is checked again
# after the lock is free. So a lane with a queued event is never deleted.
_PURGE_LANES = f"""
DELETE FROM lane WHERE user_id IN (
    SELECT user_id FROM lane
    WHERE next_at IS NULL AND owner IS NULL AND lease_until < {_NOW} - %s LIMIT %s
    FOR UPDATE SKIP LOCKED)""".encode()

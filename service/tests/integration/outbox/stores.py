"""The two stores, and what tests ask of them beside what the service does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import psycopg

from event_service.outbox.postgres_store import PostgresStore
from event_service.outbox.records import NewDelivery
from event_service.outbox.sqlite_store import SqliteStore

_numbers = count(1)


class Database:
    """A database, as the path of a SQLite file or the URL of a PostgreSQL server."""

    def __init__(self, place: Path | str) -> None:
        self.place = place

    @asynccontextmanager
    async def store(self, **options: Any) -> AsyncIterator[Any]:
        """Another process's store, as far as the database can tell."""
        values = {"limit": 1_000, "give_up": 1_000.0, **options}
        if isinstance(self.place, Path):
            store: Any = SqliteStore(self.place, **values)
        else:
            store = PostgresStore(self.place, **values)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def execute(self, *statements: str) -> list[Any]:
        """The rows of the last one; all are one transaction.

        In a thread: what holds a lock meanwhile may be another task of this very loop.
        """
        return await asyncio.to_thread(self._execute, statements)

    def _execute(self, statements: Sequence[str]) -> list[Any]:
        if isinstance(self.place, Path):
            connection = apsw.Connection(str(self.place))
            connection.set_busy_timeout(5_000)
            rows: list[Any] = []
            with contextlib.closing(connection):
                connection.execute("BEGIN IMMEDIATE")
                for sql in statements:
                    rows = connection.execute(sql).fetchall()
                connection.execute("COMMIT")
            return rows
        with psycopg.connect(self.place) as connection:
            for sql in statements:
                cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    async def age(self, seconds: float) -> None:
        """Let time pass, for all that the database remembers."""
        for_update = "" if isinstance(self.place, Path) else "FOR UPDATE"
        await self.execute(
            f"SELECT 1 FROM lane ORDER BY user_id {for_update}",
            f"UPDATE lane SET next_at = next_at - {seconds}, lease_until = lease_until - {seconds}",
            f"UPDATE outbox SET accepted_at = accepted_at - {seconds},"
            f" give_up_at = give_up_at - {seconds}, finished_at = finished_at - {seconds}",
        )


def entry(user_id: str = "1", **fields: Any) -> NewDelivery:
    number = next(_numbers)
    values = {
        "id": f"event-{number}",
        "idem_key": None,
        "fingerprint": b"print",
        "client": "",
        "user_id": user_id,
        "body": b'{"userId":"1","title":"t"}',
        "upstream_key": f"key-{number}",
        "request_id": f"request-{number}",
        "traceparent": "",
    }
    return NewDelivery(**{**values, **fields})

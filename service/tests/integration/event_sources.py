"""Each kind of source of events, really there: the mock over HTTP, SQLite and PostgreSQL."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import mock_upstream.data as upstream
from event_service.models import Event, User
from event_service.settings import Settings
from event_service.sources.data_file import checked
from event_service.sources.postgres_events import PostgresEvents
from event_service.sources.sqlite_events import SqliteEvents
from event_service.wiring.sources import build_http_events
from mock_upstream import run_mock

# Opens a source that holds these users and events and nothing else.
Holding = Callable[[Sequence[User], Sequence[Event]], AbstractAsyncContextManager[Any]]


class Given:
    """What the mock begins with."""

    def __init__(self, users: Sequence[User], events: Sequence[Event]) -> None:
        self._users = {user.id: upstream.User(user.id, user.name, user.events) for user in users}
        self._events = {
            event.id: upstream.Event(event.id, event.userId, event.title, event.description)
            for event in events
        }

    def users(self) -> Iterator[upstream.User]:
        return iter(self._users.values())

    def user(self, user_id: str) -> upstream.User | None:
        return self._users.get(user_id)

    def event(self, event_id: str) -> upstream.Event | None:
        return self._events.get(event_id)


def http(_request: pytest.FixtureRequest) -> Holding:
    @asynccontextmanager
    async def holding(users: Sequence[User], events: Sequence[Event]) -> AsyncIterator[Any]:
        async with run_mock(data=Given(users, events), event_delay=0, refuse=0) as mock:
            source = build_http_events(Settings(env="testing", upstream_url=mock.url))
            try:
                yield source
            finally:
                await source.close()

    return holding


def sqlite(request: pytest.FixtureRequest) -> Holding:
    path: Path = request.getfixturevalue("tmp_path") / "events.db"

    @asynccontextmanager
    async def holding(users: Sequence[User], events: Sequence[Event]) -> AsyncIterator[Any]:
        for each in path.parent.glob("events.db*"):
            each.unlink()
        async with filled(SqliteEvents(f"sqlite:///{path}"), users, events) as source:
            yield source

    return holding


def postgres(request: pytest.FixtureRequest) -> Holding:
    url: str = request.getfixturevalue("postgres_url")

    @asynccontextmanager
    async def holding(users: Sequence[User], events: Sequence[Event]) -> AsyncIterator[Any]:
        with psycopg.connect(url) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
            connection.execute("TRUNCATE users, events, idempotency_keys RESTART IDENTITY")
        source = PostgresEvents(url, connections=4, timeout=5.0)
        async with filled(source, users, events):
            yield source

    return holding


DATABASES = [sqlite, pytest.param(postgres, marks=pytest.mark.needs("initdb"))]
SOURCES = [http, *DATABASES]


@asynccontextmanager
async def filled(
    source: SqliteEvents | PostgresEvents, users: Sequence[User], events: Sequence[Event]
) -> AsyncIterator[Any]:
    try:
        await source.open()
        await source.import_data(*checked(users, events))
        yield source
    finally:
        await source.close()

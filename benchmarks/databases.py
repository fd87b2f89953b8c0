"""The databases of the benchmark, filled with users who have ten events each."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Literal

import psutil
from service.tests.postgres_server import find_programs, postgres_server

from benchmarks import data
from event_service.models import Event, User
from event_service.sources.data_file import checked
from event_service.sources.databases import build_database

KNOWN_USERS = 1000


class NoServer(Exception):
    pass


def known(number: int) -> str:
    """The id of one of the users that are there."""
    return f"known{number % KNOWN_USERS}-10"


@dataclass(frozen=True)
class Running:
    """A database that is there; `pid` of its server, if it has one."""

    url: str
    pid: int | None = None

    @property
    def process(self) -> "Running":
        return self

    def cpu_seconds(self) -> float:
        if self.pid is None:
            return 0.0
        root = psutil.Process(self.pid)
        total = 0.0
        for process in (root, *root.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total


@dataclass(frozen=True)
class Database:
    """SQLite in a file, or a PostgreSQL server on the core of whoever starts it: the load's."""

    dialect: Literal["sqlite", "postgresql"]
    kind = "sql"
    refuses_events = False

    @contextmanager
    def running(self, _core: int) -> Iterator[Running]:
        with ExitStack() as stack:
            if self.dialect == "sqlite":
                folder = stack.enter_context(TemporaryDirectory(prefix="event-service-benchmark-"))
                running = Running(f"sqlite:///{folder}/events.db")
            else:
                programs = find_programs()
                if programs is None:
                    raise NoServer("PostgreSQL is not installed: apt-get install postgresql")
                server = stack.enter_context(postgres_server(programs))
                running = Running(server.create_database(), server.pid)
            asyncio.run(fill(running.url))
            yield running


async def fill(url: str) -> None:
    database = build_database(url, connections=1, timeout=10.0)
    try:
        await database.migrate()
        users = [data.user(known(number)) for number in range(KNOWN_USERS)]
        users += [*data.USERS, *(data.user(f"check-{count}") for count in (0, 1, 3))]
        events = [event for user in users for event in data.events_of(user["id"])]
        await database.import_data(
            *checked((User(**user) for user in users), (Event(**event) for event in events))
        )
    finally:
        await database.close()

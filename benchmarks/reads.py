"""`python -m benchmarks.reads`: reads of a user with ten events, without HTTP.

64 callers in one process on one core, PostgreSQL on another. The service's own sources, and
SQLAlchemy Core in the interpreter of the FastAPI peers. Reads are counted by second of the
process's CPU time, of which other work on the machine takes nothing away. Each figure is the
middle one of some rounds.
"""

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median

import uvloop

from benchmarks.contenders import FASTAPI, FASTAPI_BIN, INSTALL_FASTAPI
from benchmarks.databases import Database, NoServer, known
from event_service.libs.postgres import build_pool
from event_service.models import Event
from event_service.sources.databases import build_database
from event_service.sources.postgres_events import SQL
from event_service.sources.sql_events import events_of

CALLERS = 64
CONNECTIONS = 16  # the service's default
PEER = FASTAPI_BIN / "python"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each figure")
    options = parser.parse_args()
    if not PEER.exists():
        for command in INSTALL_FASTAPI:
            subprocess.run(command, check=True)
    usable = sorted(os.sched_getaffinity(0))
    readers = {
        "sqlite": {"APSW on the event loop": _ours, "SQLAlchemy Core, aiosqlite": _sqlalchemy},
        "postgresql": {
            "psycopg, a statement for many": _ours,
            "psycopg, a statement each": _one_by_one,
            "SQLAlchemy Core, asyncpg": _sqlalchemy,
        },
    }
    print(f"{'64 callers, a user with ten events':<36}  reads/s of CPU time, and by round")
    for dialect, named in readers.items():
        # The server inherits the one core, the reader takes the other.
        os.sched_setaffinity(0, {usable[-1]})
        try:
            with Database(dialect).running(usable[-1]) as database:
                os.sched_setaffinity(0, {usable[0]})
                found = {title: [] for title in named}
                for _ in range(options.rounds):
                    for title, read in named.items():
                        found[title].append(read(database.url, options.seconds))
        except NoServer as absent:
            print(absent, file=sys.stderr)
            return 2
        for title, rates in found.items():
            shown = ", ".join(f"{rate:,.0f}" for rate in rates)
            print(f"{title:<36} {median(rates):>8,.0f}   {shown}")
    return 0


def _ours(url: str, seconds: float) -> float:
    return uvloop.run(_read(url, seconds))


async def _read(url: str, seconds: float) -> float:
    database = build_database(url, connections=CONNECTIONS, timeout=5.0)
    await database.open()
    try:
        return await _rate(database.events_of, seconds)
    finally:
        await database.close()


def _one_by_one(url: str, seconds: float) -> float:
    return uvloop.run(_read_one_by_one(url, seconds))


async def _read_one_by_one(url: str, seconds: float) -> float:
    pool = build_pool(url, max_size=CONNECTIONS, timeout=5.0, statement_timeout=5.0, checked=False)

    async def read(user_id: str) -> list[Event]:
        async with pool.connection() as connection:
            cursor = await connection.execute(SQL.events_of.encode(), [user_id], prepare=True)
            return events_of(user_id, await cursor.fetchall())

    async with pool:
        return await _rate(read, seconds)


async def _rate(read: Callable[[str], Awaitable[list[Event]]], seconds: float) -> float:
    numbers = itertools.count()
    ends = time.monotonic() + seconds
    reads = 0

    async def call() -> None:
        nonlocal reads
        while time.monotonic() < ends:
            events = await read(known(next(numbers)))
            if len(events) != 10:
                raise AssertionError(events)
            reads += 1

    began = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(call())
    return reads / (time.process_time() - began)


def _sqlalchemy(url: str, seconds: float) -> float:
    command = [PEER, FASTAPI / "sqlalchemy_reads.py", url, str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout)


if __name__ == "__main__":
    sys.exit(main())

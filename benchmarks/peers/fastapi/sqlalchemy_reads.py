"""Reads of a user's events with SQLAlchemy Core, a second: python sqlalchemy_reads.py URL SECONDS.

As `benchmarks/database.py` reads with the service's own sources.
"""

import asyncio
import itertools
import sys
import time

import uvloop
from tables import engine_for, events_of_user

CALLERS = 64
USERS = 1000


async def main(url: str, seconds: float) -> float:
    engine = engine_for(url)
    numbers = itertools.count()
    ends = time.monotonic() + seconds
    reads = 0

    async def call() -> None:
        nonlocal reads
        while time.monotonic() < ends:
            user_id = f"known{next(numbers) % USERS}-10"
            async with engine.connect() as connection:
                rows = (await connection.execute(events_of_user, {"user_id": user_id})).all()
            if len(rows) != 10:
                raise AssertionError(rows)
            reads += 1

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(call())
    rate = reads / (time.monotonic() - began)
    await engine.dispose()
    return rate


if __name__ == "__main__":
    print(uvloop.run(main(sys.argv[1], float(sys.argv[2]))))

"""Reads of a user's events with SQLAlchemy Core: python sqlalchemy_reads.py URL SECONDS.

Prints how many there are in a second of CPU time.

As `benchmarks/reads.py` does with the service's own sources.
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

    began = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(call())
    rate = reads / (time.process_time() - began)
    await engine.dispose()
    return rate


if __name__ == "__main__":
    print(uvloop.run(main(sys.argv[1], float(sys.argv[2]))))

"""One process of many: calls an upstream that is down, from many tasks, until time is up."""

import asyncio
import contextlib
import os
import sys
import time

from halfopen import CircuitBreaker, CircuitOpen, FailureCount
from halfopen.redis import RedisCircuits

CALLERS = 25


async def main(url: str, log: str, seconds: float) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    ends = time.monotonic() + seconds
    async with RedisCircuits(url, "processes") as circuits:
        breaker = CircuitBreaker("op", trip=FailureCount(3, within=30), cooldown=0.3)
        circuits.join(breaker)

        async def call_on_and_on() -> None:
            while time.monotonic() < ends:
                with contextlib.suppress(ConnectionError, CircuitOpen):
                    async with breaker.guard() as permit:
                        fence = permit.grant.fence if permit.grant else 0
                        os.write(descriptor, f"{time.monotonic()} {fence}\n".encode())
                        raise ConnectionError
                await asyncio.sleep(0.01)

        await asyncio.gather(*(call_on_and_on() for _ in range(CALLERS)))


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))

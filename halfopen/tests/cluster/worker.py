"""One process of many: its callers call an upstream that is down, through so many canaries.

Writes a line of LINE bytes for each call that arrives, to a file that all processes share: when,
and the fence of the cluster's grant, or 0.
"""

import asyncio
import os
import random
import sys
import time

from halfopen import CircuitBreaker, CircuitOpen, FailureCount
from halfopen.redis import RedisCircuits

LINE = 64
COOLDOWN = 0.3
CALL = 0.02
THINKS = 1.0  # seconds between two calls of one caller, at most
# Seconds for which all have to join, and all canaries to be sent.
PATIENCE = 120.0


async def main(url: str, log: str, processes: int, callers: int, canaries: int) -> None:
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND)

    def over() -> bool:
        return os.fstat(descriptor).st_size >= LINE * canaries

    async def upstream(fence: int) -> None:
        line = f"{time.monotonic():.6f} {fence}"
        os.write(descriptor, line.ljust(LINE - 1).encode() + b"\n")
        await asyncio.sleep(CALL)
        raise ConnectionError

    async with RedisCircuits(url, "processes", lease=5) as circuits:
        breaker = CircuitBreaker("op", trip=FailureCount(3, within=30), cooldown=COOLDOWN)
        circuits.join(breaker)

        async def call_on_and_on() -> None:
            while not over():
                wait = random.uniform(0.01, THINKS)
                try:
                    async with breaker.guard() as permit:
                        await upstream(permit.grant.fence if permit.grant else 0)
                except CircuitOpen as refused:
                    # Some come back all at once, just when the cooldown ends.
                    if 0 < refused.retry_after <= COOLDOWN and random.random() < 0.05:
                        wait = refused.retry_after
                except ConnectionError:
                    pass
                await asyncio.sleep(wait)

        while circuits.figures().nodes < processes:  # noqa: ASYNC110 - they are in other processes
            await asyncio.sleep(0.05)
        breaker.trip()
        await asyncio.gather(*(call_on_and_on() for _ in range(callers)))
        sys.stdout.write(f"{circuits.figures()}\n")


if __name__ == "__main__":
    os.nice(10)  # Redis is on the same machine here, and not to wait for those who ask it
    redis_url, calls, *sizes = sys.argv[1:]
    asyncio.run(asyncio.wait_for(main(redis_url, calls, *map(int, sizes)), PATIENCE))

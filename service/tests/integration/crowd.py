"""Many clients at once, and waiting for what they cause."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest


@asynccontextmanager
async def crowd(client: aiohttp.ClientSession) -> AsyncIterator[aiohttp.ClientSession]:
    """A session to the same service that opens as many connections as it has requests."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(client._base_url, connector=connector) as session:
        yield session


async def until(condition: Callable[[], object]) -> None:
    """Wait for what is bound to come; 10 s are enough for that."""
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it never came")


async def status_of(client: aiohttp.ClientSession, path: str) -> int:
    async with client.get(path) as reply:
        await reply.read()
        return reply.status

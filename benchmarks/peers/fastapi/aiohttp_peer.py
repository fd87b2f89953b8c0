"""FastAPI, aiohttp and the circuitbreaker package: what careful Python teams would write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from server import create_app
from upstream import TIMEOUT, UPSTREAM_URL, EventsApi, UpstreamError


@asynccontextmanager
async def connect() -> AsyncIterator[EventsApi]:
    connector = aiohttp.TCPConnector(limit=0)  # otherwise 100 connections are all there is
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(UPSTREAM_URL, connector=connector, timeout=timeout) as session:

        async def send(method: str, path: str, body: dict[str, str] | None) -> tuple[int, bytes]:
            try:
                async with session.request(method, path, json=body) as reply:
                    return reply.status, await reply.read()
            except TimeoutError as error:
                raise UpstreamError(504, "the upstream is too slow") from error
            except aiohttp.ClientError as error:
                raise UpstreamError(502, "the upstream cannot be reached") from error

        yield EventsApi(send)


app = create_app(connect())

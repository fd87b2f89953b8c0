"""FastAPI, httpx and the circuitbreaker package: what most Python teams would write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from server import create_app
from upstream import TIMEOUT, UPSTREAM_URL, EventsApi, UpstreamError


@asynccontextmanager
async def connect() -> AsyncIterator[EventsApi]:
    # Without these limits 100 connections and 20 kept alive are all there is.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=UPSTREAM_URL, timeout=TIMEOUT, limits=limits) as client:

        async def send(method: str, path: str, body: dict[str, str] | None) -> tuple[int, bytes]:
            try:
                reply = await client.request(method, path, json=body)
            except httpx.TimeoutException as error:
                raise UpstreamError(504, "the upstream is too slow") from error
            except httpx.HTTPError as error:
                raise UpstreamError(502, "the upstream cannot be reached") from error
            return reply.status_code, reply.content

        yield EventsApi(send)


app = create_app(connect())

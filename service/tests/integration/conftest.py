import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from random import SystemRandom
from typing import Any

import aiohttp
import pytest
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from event_service.app import create_app
from event_service.settings import Settings
from mock_upstream import MockUpstream, run_mock

from .certificates import Certificates

Start = Callable[..., AbstractAsyncContextManager[aiohttp.ClientSession]]


@pytest.fixture
async def mock() -> AsyncIterator[MockUpstream]:
    """The mock upstream on a free port, answering at once and refusing nothing of itself."""
    async with run_mock(event_delay=0, refuse=0) as mock:
        yield mock


@pytest.fixture
async def start(mock: MockUpstream) -> Start:
    """Starts the service, in this process, in front of the mock; yields a client for it.

    Keyword arguments are settings; `app` holds further arguments of `create_app`.
    """

    def start(
        *, app: dict[str, Any] | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        values = {"env": "testing", "upstream_url": mock.url, **settings}
        return serving(Settings(**values), **(app or {}))

    return start


@asynccontextmanager
async def serving(settings: Settings, **arguments: Any) -> AsyncIterator[aiohttp.ClientSession]:
    logging.getLogger("_granian").setLevel(logging.ERROR)
    port = free_port()
    server = Server(
        create_app(settings, **arguments),
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backpressure=65_535,
        http1_settings=HTTP1Settings(header_read_timeout=5_000),
        log_enabled=False,
    )
    running = asyncio.create_task(server.serve())
    try:
        await _listening(port, running)
        # Paths go out as the test spells them.
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", requote_redirect_url=False
        ) as client:
            yield client
    finally:
        server.stop()
        await running


async def _listening(port: int, running: asyncio.Task[None]) -> None:
    while not running.done():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.005)
        else:
            writer.close()
            await writer.wait_closed()
            return
    await running


def free_port() -> int:
    """Not one of those for outgoing connections: any of them may take it before the server does."""
    while True:
        port = SystemRandom().randint(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session")
def certificates(needs, tmp_path_factory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    return Certificates(needs("openssl"), folder)

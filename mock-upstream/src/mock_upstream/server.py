from __future__ import annotations

import gc
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from mock_upstream.app import App
from mock_upstream.data import DataSet
from mock_upstream.dialects import DialectName
from mock_upstream.upstream import MockUpstream

BACKLOG = 65_535
_GRACE = 0.05


@asynccontextmanager
async def listening(mock: MockUpstream, *, host: str, port: int) -> AsyncIterator[MockUpstream]:
    """Serve on the running loop until the block ends; port 0 picks a free one.

    `mock.url` then says where. Raises OSError if the address cannot be had. At the end, requests
    still in flight are cut off.
    """
    server = web.Server(App(mock).handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        bound_host, bound_port = runner.addresses[0][:2]
        mock.url = f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
        yield mock
    finally:
        await runner.cleanup()


@asynccontextmanager
async def run_mock(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    data: DataSet | None = None,
    event_delay: float = 0.5,
    users: int | None = None,
    events_per_user: int = 10,
    accept: int = 5,
    refuse: int = 10,
    outage: float | None = None,
    seed: int = 0,
    dialect: DialectName = "plain",
) -> AsyncIterator[MockUpstream]:
    """Serve a new mock upstream on the running loop, for tests in the same process."""
    mock = MockUpstream(
        data=data,
        event_delay=event_delay,
        users=users,
        events_per_user=events_per_user,
        accept=accept,
        refuse=refuse,
        outage=outage,
        seed=seed,
        dialect=dialect,
    )
    async with listening(mock, host=host, port=port):
        yield mock


def prepare_process_for_many_requests() -> None:
    """Allow as many sockets as the user may have, and make the garbage collector rare.

    With 10 000 requests waiting, its default thresholds walk all of them again and again, which
    halves the requests per second; almost nothing here needs it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.set_threshold(50_000, 20, 50)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from mock_upstream import MockUpstream, run_mock


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: left out of quick runs")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def mock(anyio_backend) -> AsyncIterator[MockUpstream]:
    async with run_mock(event_delay=0.0) as mock:
        yield mock


@pytest.fixture
async def client(mock: MockUpstream) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(mock.url) as session:
        yield session


@pytest.fixture
def eventually():
    async def wait(condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        pytest.fail("it never became true")

    return wait

"""Kills the service with `kill -9` at each point of a delivery, and checks its promises."""

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import aiohttp

from mock_upstream import Fault, MockUpstream, run_mock
from torture.victim import POINTS

# Events that are sent while one victim lives.
HANDED_IN = 3
# Seconds; a generous limit for a step that is normally short.
PATIENCE = 30.0


class Lost(AssertionError):
    """An acknowledged event was not delivered, or was delivered more than once."""


class Told(NamedTuple):
    crashes: int
    acknowledged: int


async def crashes(url: str, *, times: int, points: tuple[str, ...] = POINTS) -> Told:
    """Kill the service `times` times at each point; `url` is the outbox's.

    Clients repeat unanswered requests with the same key. Raises Lost.
    """
    numbers = count()
    acknowledged: dict[str, str] = {}  # title: location
    unanswered: set[str] = set()
    killed = 0
    async with run_mock(event_delay=0, refuse=0) as mock:
        for _ in range(times):
            for point in points:
                fresh = {f"event {next(numbers)}" for _ in range(HANDED_IN)}
                async with victim(point, url, mock.url) as (process, client):
                    killer = asyncio.create_task(_kill_when_sent(process, mock, point))
                    await _hand_in(client, fresh | unanswered, acknowledged)
                    try:
                        async with asyncio.timeout(PATIENCE):
                            await process.wait()
                    except TimeoutError:
                        raise Lost(f"{point} was never reached") from None
                    finally:
                        killer.cancel()
                    if process.returncode != -signal.SIGKILL:
                        raise Lost(f"{point}: the service ended with {process.returncode}")
                    killed += 1
                unanswered = (fresh | unanswered) - acknowledged.keys()
        async with victim("none", url, mock.url) as (process, client):
            await _hand_in(client, unanswered, acknowledged)
            await _until_delivered(client, acknowledged)
            process.terminate()
            await process.wait()
        effects = Counter(event.title for event in mock.store.events())
    wrong = {title: effects[title] for title in acknowledged if effects[title] != 1}
    if wrong:
        raise Lost(f"effects of acknowledged events, which should be one each: {wrong}")
    return Told(killed, len(acknowledged))


@asynccontextmanager
async def victim(
    point: str,
    url: str,
    upstream: str,
    *,
    settings: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, aiohttp.ClientSession]]:
    """Run the service with its point; yields a client. Its log goes to `stdout`."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "torture.victim", point, str(port)),
        cwd=Path(__file__).parent.parent,
        stdout=stdout,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")},
            "EVENT_SERVICE_ENV": "testing",
            "EVENT_SERVICE_LOG_LEVEL": "error",
            "EVENT_SERVICE_UPSTREAM_URL": upstream,
            "EVENT_SERVICE_UPSTREAM_TIMEOUT": "0.4",
            "EVENT_SERVICE_BREAKER_COOLDOWN": "0.2",
            "EVENT_SERVICE_OUTBOX_URL": url,
            **(settings or {}),
        },
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            await _until_alive(process, client)
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until_alive(process: asyncio.subprocess.Process, client: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(PATIENCE):
        while process.returncode is None:
            try:
                async with client.get("/livez"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


async def _hand_in(
    client: aiohttp.ClientSession, titles: set[str], acknowledged: dict[str, str]
) -> None:
    async def hand_in(title: str) -> None:
        with suppress(aiohttp.ClientError):
            async with client.post(
                "/api/addEvent",
                json={"userId": "123"[hash(title) % 3], "title": title},
                headers={"Prefer": "respond-async", "Idempotency-Key": title.replace(" ", "-")},
            ) as reply:
                if reply.status == 202:
                    acknowledged[title] = reply.headers["Location"]

    await asyncio.gather(*map(hand_in, sorted(titles)))


async def _kill_when_sent(
    process: asyncio.subprocess.Process, mock: MockUpstream, point: str
) -> None:
    """Kill the process while the upstream has an unanswered call from it."""
    if point != "sent":
        return
    mock.faults.set("addEvent", Fault(delay=0.2))
    try:
        while not mock.journal.operations["addEvent"].in_flight:
            await asyncio.sleep(0.001)
        process.kill()
    finally:
        mock.faults.clear("addEvent")


async def _until_delivered(client: aiohttp.ClientSession, acknowledged: dict[str, str]) -> None:
    async with asyncio.timeout(PATIENCE):
        for location in acknowledged.values():
            while True:
                async with client.get(location) as reply:
                    told = await reply.json()
                if told.get("status") == "delivered":
                    break
                if told.get("status") != "queued":
                    raise Lost(f"{location}: {told}")
                await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

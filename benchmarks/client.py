"""`python -m benchmarks.client`: the HTTP client alone, beside others and a raw socket loop.

Each asks nginx for the same small reply, 1, 10 or 1 000 times at once, on one core and uvloop,
and takes turns with the others. Counted is the CPU time of this process with all its threads, so
that what else the machine does matters little.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import uvloop
from pyreqwest.client import ClientBuilder

from benchmarks.processes import allow_many_files
from benchmarks.upstreams import Fast
from event_service.libs.garbage import make_collection_rare
from event_service.libs.http_client import HttpClient, parse_base_url

PATH = "/getUserById/ann-0"
AT_ONCE = (1, 10, 1_000)
SLICE = 0.25  # seconds of CPU time that one contender takes in one round
OURS, RAW = "ours", "raw socket loop"
GOALS = {"pyreqwest": 1.5, "aiohttp": 4.0, RAW: 0.5}
Fetch = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Fetch]:
    client = HttpClient(
        parse_base_url(url), headers={"accept": "application/json"}, connections=max(AT_ONCE)
    )

    async def fetch() -> bytes:
        reply = await client.send("GET", PATH, time_limit=5)
        return await reply.read()

    yield fetch
    await client.close()


@asynccontextmanager
async def pyreqwest(url: str) -> AsyncIterator[Fetch]:
    async with ClientBuilder().no_proxy().timeout(timedelta(seconds=5)).build() as client:

        async def fetch() -> bytes:
            reply = await client.get(url + PATH).build().send()
            return bytes(await reply.bytes())

        yield fetch


@asynccontextmanager
async def with_aiohttp(url: str) -> AsyncIterator[Fetch]:
    connector = aiohttp.TCPConnector(limit=max(AT_ONCE))
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def fetch() -> bytes:
            async with session.get(url + PATH) as reply:
                return await reply.read()

        yield fetch


class Raw(asyncio.Protocol):
    """Sends bytes that are always the same and takes the first packet for the reply."""

    transport: asyncio.Transport
    reply: asyncio.Future[bytes]

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.reply.set_result(data)


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Fetch]:
    loop = asyncio.get_running_loop()
    host, _, port = url.removeprefix("http://").partition(":")
    request = f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n\r\n".encode()
    idle: list[Raw] = []

    async def fetch() -> bytes:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(Raw, host, int(port))
        connection.reply = loop.create_future()
        connection.transport.write(request)
        reply = await connection.reply
        idle.append(connection)
        return reply.partition(b"\r\n\r\n")[2]

    yield fetch
    for connection in idle:
        connection.transport.abort()


CLIENTS = {OURS: ours, "pyreqwest": pyreqwest, "aiohttp": with_aiohttp, RAW: raw}


async def calls_a_second(fetch: Fetch, at_once: int, seconds: float) -> float:
    """Of CPU time."""
    count = 0
    began = time.process_time()
    while (spent := time.process_time() - began) < seconds:
        if at_once == 1:
            await fetch()
        else:
            await asyncio.gather(*(fetch() for _ in range(at_once)))
        count += at_once
    return count / spent


async def measure(url: str, rounds: int) -> dict[int, dict[str, list[float]]]:
    """Calls a second of CPU time by number at once and client, one figure for each round."""
    figures: dict[int, dict[str, list[float]]] = {
        at_once: {name: [] for name in CLIENTS} for at_once in AT_ONCE
    }
    make_collection_rare()  # as the service does
    async with AsyncExitStack() as stack:
        fetches = {
            name: await stack.enter_async_context(build(url)) for name, build in CLIENTS.items()
        }
        for fetch in fetches.values():
            await asyncio.gather(*(fetch() for _ in range(max(AT_ONCE))))  # connections are made
        for _ in range(rounds):
            for at_once, by_client in figures.items():
                for name, fetch in fetches.items():
                    by_client[name].append(await calls_a_second(fetch, at_once, SLICE))
    return figures


def rows(figures: dict[int, dict[str, list[float]]]) -> list[dict]:
    """One for each client and number at once; `ratio`: ours to it, the median of the rounds."""
    found = []
    for at_once, by_client in figures.items():
        for name, rates in by_client.items():
            ratios = [mine / its for mine, its in zip(by_client[OURS], rates, strict=True)]
            found.append(
                {
                    "at_once": at_once,
                    "client": name,
                    "calls_per_cpu_second": round(statistics.median(rates)),
                    "ratio": round(statistics.median(ratios), 3),
                    "goal": GOALS.get(name),
                }
            )
    return found


def report(found: list[dict]) -> None:
    print(f"{'at once':>8}  {'client':<16} {'calls/s':>9}  of CPU time; ours is (median of rounds)")
    for row in found:
        line = f"{row['at_once']:>8}  {row['client']:<16} {row['calls_per_cpu_second']:>9,}"
        if goal := row["goal"]:
            verdict = "met" if row["ratio"] >= goal else "missed"
            line += f"  {row['ratio']:.2f} × (goal {goal:g}, {verdict})"
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args()
    allow_many_files()
    usable = sorted(os.sched_getaffinity(0))
    with Fast().running(usable[-1]) as upstream:
        os.sched_setaffinity(0, {usable[0]})
        found = rows(uvloop.run(measure(upstream.url, options.rounds)))
    report(found)
    if options.json:
        options.json.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

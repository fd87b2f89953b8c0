"""Pauses a worker during a delivery until another worker has its lane."""

import asyncio
import signal
from asyncio.subprocess import PIPE, Process

import aiohttp

from mock_upstream import Fault, MockUpstream, run_mock
from torture.crashes import PATIENCE, Lost, victim

EVENTS = 5


async def pause(url: str, *, times: int) -> int:
    """Pause a worker `times` times beyond its lease. Returns the number of delivered events.

    Its late write must be fenced, and the other worker's writes must remain. Raises Lost.
    """
    async with run_mock(event_delay=0, refuse=0) as mock:
        for round_ in range(times):
            await _pause_once(url, mock, round_)
        stored = [event.title for event in mock.store.events_of("1")]
    expected = [_title(round_, number) for round_ in range(times) for number in range(EVENTS)]
    if [title for title in stored if title in set(expected)] != expected:
        raise Lost(f"sent {expected}, stored {stored}")
    return len(expected)


async def _pause_once(url: str, mock: MockUpstream, round_: int) -> None:
    logging = {"EVENT_SERVICE_LOG_LEVEL": "warning"}
    async with victim("none", url, mock.url, settings=logging, stdout=PIPE) as (paused, client):
        mock.faults.set("addEvent", Fault(delay=0.2))
        locations = await _hand_in(client, round_)
        async with asyncio.timeout(PATIENCE):
            while not mock.journal.operations["addEvent"].in_flight:
                await asyncio.sleep(0.001)
        paused.send_signal(signal.SIGSTOP)
        mock.faults.clear("addEvent")
        try:
            async with victim("none", url, mock.url) as (_, other):
                told = await _until_settled(other, locations)
                paused.send_signal(signal.SIGCONT)
                await _until_fenced(paused)
                if await _until_settled(other, locations) != told:
                    raise Lost("the paused worker has overwritten what the other one recorded")
        finally:
            # A stopped process reacts only to SIGKILL and SIGCONT.
            paused.send_signal(signal.SIGCONT)
    wrong = [each for each in told if (each["status"], each["attempts"]) != ("delivered", 1)]
    if wrong:
        raise Lost(f"not delivered by the other worker alone: {wrong}")


def _title(round_: int, number: int) -> str:
    return f"pause {round_}: {number}"


async def _hand_in(client: aiohttp.ClientSession, round_: int) -> list[str]:
    locations = []
    for number in range(EVENTS):
        async with client.post(
            "/api/addEvent",
            json={"userId": "1", "title": _title(round_, number)},
            headers={"Prefer": "respond-async"},
        ) as reply:
            locations.append(reply.headers["Location"])
    return locations


async def _until_settled(
    client: aiohttp.ClientSession, locations: list[str]
) -> list[dict[str, object]]:
    told = []
    async with asyncio.timeout(PATIENCE):
        for location in locations:
            while True:
                async with client.get(location) as reply:
                    found = await reply.json()
                if found.get("status") != "queued":
                    break
                await asyncio.sleep(0.05)
            told.append(found)
    return told


async def _until_fenced(process: Process) -> None:
    if process.stdout is None:
        raise AssertionError("its log goes elsewhere")
    async with asyncio.timeout(PATIENCE):
        async for line in process.stdout:
            if b'"delivery fenced"' in line:
                return
    raise Lost("the late record of the paused worker was not fenced")

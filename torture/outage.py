"""An outage of the upstream, and its end, while many users send events."""

import asyncio
import time
from math import ceil
from typing import NamedTuple

import aiohttp

from mock_upstream import Fault, MockUpstream, run_mock
from torture.crashes import PATIENCE, Lost, victim

COOLDOWN = 0.5
FAILURES = 3


class Told(NamedTuple):
    """`delivered_in`: the seconds from the end of the outage to the last delivery."""

    calls: int
    events: int
    delivered_in: float


async def outage(url: str, *, seconds: float, users: int, events: int) -> Told:
    """Send `events` events while the upstream is down for `seconds`. Raises Lost.

    Each user's events are sent one after another, so that their order is known.
    """
    async with run_mock(event_delay=0, refuse=0, users=users, events_per_user=0) as mock:
        ids = [user.id for user in mock.store.users()]
        mock.faults.set("addEvent", Fault(status=503))
        settings = {"EVENT_SERVICE_BREAKER_COOLDOWN": str(COOLDOWN)}
        async with victim("none", url, mock.url, settings=settings) as (process, client):
            began = time.monotonic()
            sent = await _hand_in_all(client, ids, events)
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
            calls = mock.journal.counts["addEvent"]
            allowed = FAILURES + ceil((time.monotonic() - began) / COOLDOWN)
            if calls > allowed:
                raise Lost(f"{calls} calls in the outage, {allowed} are allowed")
            mock.faults.clear("addEvent")
            ended = time.monotonic()
            await _until_stored(mock, events)
            took = time.monotonic() - ended
            process.terminate()
            await process.wait()
        _check(mock, sent)
        after = mock.journal.counts["addEvent"] - calls
        # On a busy machine a few attempts take too long and are repeated.
        if after > 1.05 * events + FAILURES:
            raise Lost(f"{after} calls for {events} events")
    return Told(calls, events, took)


async def _hand_in_all(
    client: aiohttp.ClientSession, users: list[str], events: int
) -> dict[str, list[str]]:
    sent: dict[str, list[str]] = {user: [] for user in users}

    async def hand_in(user: str, number: int) -> None:
        for place in range(number):
            title = f"{user}: {place}"
            async with client.post(
                "/api/addEvent",
                json={"userId": user, "title": title},
                headers={"Prefer": "respond-async"},
            ) as reply:
                if reply.status != 202:
                    raise Lost(f"{reply.status}: {await reply.text()}")
            sent[user].append(title)

    each, more = divmod(events, len(users))
    async with asyncio.TaskGroup() as tasks:
        for place, user in enumerate(users):
            tasks.create_task(hand_in(user, each + (place < more)))
    return sent


async def _until_stored(mock: MockUpstream, events: int) -> None:
    last, moved = -1, time.monotonic()
    while (stored := sum(1 for _ in mock.store.events())) < events:
        if stored > last:
            last, moved = stored, time.monotonic()
        if time.monotonic() - moved > PATIENCE:
            raise Lost(f"{stored} of {events} are delivered, and no more come")
        await asyncio.sleep(0.1)


def _check(mock: MockUpstream, sent: dict[str, list[str]]) -> None:
    stored: dict[str, list[str]] = {user: [] for user in sent}
    for event in mock.store.events():
        stored[event.user_id].append(event.title)
    for user, titles in sent.items():
        if stored[user] != titles:
            raise Lost(f"user {user}: sent {titles[:9]}…, stored {stored[user][:9]}…")

"""The acts of the demo. Each ends with claims, checked against what was measured."""

import asyncio
import statistics
import time
from collections import Counter
from typing import Any, NamedTuple

import aiohttp

from demo.screen import Claim, Screen, circuit

USER = "1"
CALLERS = 10
REFUSALS = 25
# Factor by which a busy machine may be slower than an idle one.
PATIENCE = 3


class Pace(NamedTuple):
    """In seconds: an event's delay, the cooldown of the circuit, and time for the reader."""

    event_delay: float
    cooldown: float
    pause: float


class Reply(NamedTuple):
    status: int
    kind: str
    retry_after: float
    milliseconds: float


class Story:
    def __init__(
        self, service: aiohttp.ClientSession, upstream: aiohttp.ClientSession, screen: Screen
    ) -> None:
        self._service = service
        self._upstream = upstream
        self._screen = screen
        self.claims: list[Claim] = []

    def claim(self, text: str, holds: bool, seen: str) -> None:
        self.claims.append(Claim(text, seen, holds))
        mark = "[green]✓[/]" if holds else "[bold red]✗[/]"
        self._screen.say(f"{mark} {text}: {seen}")

    async def add(self) -> Reply:
        started = time.perf_counter()
        async with self._service.post(
            "/api/addEvent", json={"userId": USER, "title": "Demo"}
        ) as reply:
            body = await reply.json(content_type=None)
            return Reply(
                reply.status,
                body.get("type", "accepted").removeprefix("/problems/"),
                float(reply.headers.get("Retry-After", 0)),
                1000 * (time.perf_counter() - started),
            )

    async def reached(self) -> int:
        """The number of writes that have reached the upstream."""
        journal = await get(self._upstream, "/__admin/requests?limit=1")
        count: int = journal["counts"]["addEvent"]
        return count

    async def state(self) -> str:
        ready = await get(self._service, "/readyz")
        state: str = ready["breakers"]["addEvent"]
        return state

    async def reads(self, pace: Pace) -> None:
        user = await get(self._upstream, f"/getUserById/{USER}")
        ids = user["events"]
        self._screen.act(
            f"A user with {len(ids)} events, each of which takes the upstream "
            f"{pace.event_delay:g} s",
            "First asked for one by one, as a client would have to; then through the service.",
        )

        async def one_by_one() -> list[Any]:
            return [await get(self._upstream, f"/getEventById/{each}") for each in ids]

        full = len(ids) * pace.event_delay * 1.1
        expected, slow = await self._screen.bar("one by one", one_by_one(), full=full)
        in_parallel = get(self._service, f"/api/getEventsByUserId/{USER}")
        events, fast = await self._screen.bar("in parallel", in_parallel, full=full)
        self.claim(
            "the service answers with the same events, in the same order",
            events == expected,
            f"{len(events)} events",
        )
        self.claim(
            "and much sooner", slow > len(ids) / PATIENCE * fast, f"{slow / fast:.1f} times as fast"
        )

    async def outage(self, pace: Pace) -> None:
        self._screen.act(
            "Writes, until the upstream gives in",
            "It takes five and then answers 503. The third failure opens the circuit.",
        )
        replies = []
        for number in range(1, 10):
            reply = await self.add()
            replies.append(reply)
            colour = "green" if reply.status == 200 else "yellow"
            self._screen.say(
                f"write {number}  [{colour}]{reply.status} {reply.kind:<22}[/]"
                f"{reply.milliseconds:7.1f} ms   {circuit(await self.state())}"
            )
            await asyncio.sleep(pace.pause)
        kinds = [reply.kind for reply in replies]
        wanted = ["accepted"] * 5 + ["upstream-unavailable"] * 3 + ["circuit-open"]
        self.claim(
            "the third failure opens the circuit", kinds == wanted, circuit(await self.state())
        )

    async def refusals(self) -> None:
        self._screen.act(
            "The circuit is open",
            f"{REFUSALS} more writes. They are refused at once, and the upstream has its rest.",
        )
        before = await self.reached()
        replies = [await self.add() for _ in range(REFUSALS)]
        calls = await self.reached() - before
        refused = sum(reply.kind == "circuit-open" for reply in replies)
        typical = statistics.median(reply.milliseconds for reply in replies)
        self.claim(
            "every write is refused, with the seconds to wait",
            refused == REFUSALS and all(reply.retry_after >= 1 for reply in replies),
            f"{refused} of {REFUSALS} in {typical:.1f} ms each, "
            f"Retry-After {replies[-1].retry_after:g} s",
        )
        self.claim("none of them reaches the upstream", calls == 0, f"{calls} calls")

    async def canary(self, pace: Pace, *, recovers: bool) -> None:
        self._screen.act(
            "Another cooldown, and the upstream has recovered"
            if recovers
            else "After the cooldown, one canary",
            f"{CALLERS} callers at once. One is let through, the others are refused meanwhile.",
        )
        await self._until_half_open(pace)
        # With a slow upstream, all of them arrive while the canary is in flight.
        await put(self._upstream, "/__admin/faults/addEvent", {"delay": pace.event_delay})
        before = await self.reached()
        replies = await asyncio.gather(*[self.add() for _ in range(CALLERS)])
        calls = await self.reached() - before
        await self._upstream.delete("/__admin/faults/addEvent")
        kinds = Counter(reply.kind for reply in replies)
        for kind, count in kinds.items():
            self._screen.say(f"{count:2} × {kind}")
        answer = "accepted" if recovers else "upstream-unavailable"
        self.claim(
            f"exactly one canary, and it is {'accepted' if recovers else 'refused'}",
            calls == 1 and kinds == {answer: 1, "circuit-open": CALLERS - 1},
            f"{calls} of {CALLERS} calls reached the upstream",
        )
        state = await self.state()
        if recovers:
            self.claim("its success closes the circuit", state == "closed", circuit(state))
        else:
            self.claim("its failure opens the circuit again", state == "open", circuit(state))

    async def _until_half_open(self, pace: Pace) -> None:
        asked = await self.add()
        # Retry-After is in whole seconds; the breaker's own cooldown may be less.
        await self._screen.wait(min(asked.retry_after, pace.cooldown), "until the next try")

    async def recovery(self, pace: Pace) -> None:
        self._screen.act("Back to normal", "Writes are accepted again.")
        replies = []
        for _ in range(3):
            replies.append(await self.add())
            self._screen.say(f"{replies[-1].status} in {replies[-1].milliseconds:.1f} ms")
            await asyncio.sleep(pace.pause)
        ready = await get(self._service, "/readyz")
        accepted = sum(reply.kind == "accepted" for reply in replies)
        self.claim(
            "writes are accepted again",
            accepted == len(replies) and ready["status"] == "ok",
            f"{accepted} of {len(replies)}, readyz says {ready['status']}",
        )


async def tell(service: str, upstream: str, screen: Screen, pace: Pace) -> list[Claim]:
    """All acts in order. The mock accepts five writes and refuses four."""
    async with aiohttp.ClientSession(service) as ours, aiohttp.ClientSession(upstream) as theirs:
        story = Story(ours, theirs, screen)
        await story.reads(pace)
        await story.outage(pace)
        await story.refusals()
        await story.canary(pace, recovers=False)
        await story.canary(pace, recovers=True)
        await story.recovery(pace)
        return story.claims


async def get(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as reply:
        return await reply.json(content_type=None)


async def put(session: aiohttp.ClientSession, path: str, body: object) -> None:
    async with session.put(path, json=body) as reply:
        reply.raise_for_status()

"""Nodes, a network and a Redis in virtual time: what happens follows from the seed alone.

The nodes are the real ones (`RedisCircuits`, `CircuitBreaker`, asyncio); simulated are the clock,
Redis, the way to it, and the upstream. `python simulation.py SEED` tells a seed's story.
"""

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import virtual_time
from simulated_redis import Scripts, SimulatedRedis, Store

from halfopen import CircuitBreaker, CircuitOpen, FailureCount, State
from halfopen.redis import LinkLost, RedisCircuits

COOLDOWN = 1.0
LEASE = 0.8
CALL = 0.2  # seconds that a call takes at most
HANG = 1.5  # or, seldom, so long: longer than the lease
TROUBLE = 12.0  # seconds during which things go wrong
CONVERGED = 2.0  # seconds after the last trouble until all agree
EPOCH = 1_790_000_000_000_000  # of Redis' clock, in microseconds


class Down(Exception):
    """The upstream failed."""


@dataclass
class Canary:
    node: str
    fence: int
    started: float
    ended: float | None = None


@dataclass
class World:
    """What happens to everybody."""

    seed: int
    scripts: type[Scripts] | None = None  # broken ones, to see that it is noticed
    chance: random.Random = field(init=False)
    story: list[str] = field(default_factory=list)
    canaries: list[Canary] = field(default_factory=list)
    upstream_down: bool = False
    failovers: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # found where raising would reach nobody

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.redis = SimulatedRedis(self.micros, self.publish, self.scripts)
        self.replica = Store()
        self.links: list[SimulatedLink] = []
        self.decisions: dict[str, tuple[str, str]] = {}
        self.redis_down = False
        self.healed = False
        self.fails_over_next = False
        self.crashes_next = False
        self.nodes: list[Node] = []
        self.errands: set[asyncio.Task[None]] = set()
        self.redis_slow = 0.0
        self.clock_skew = 0

    def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time

    async def sleep(self, seconds: float) -> None:
        """As `asyncio.sleep`, at half its price: there are hundreds in each life."""
        woken = self.loop.create_future()
        self.loop.call_later(seconds, wake, woken)
        await woken

    def micros(self) -> int:
        return EPOCH + self.clock_skew + int(self.now() * 1_000_000)

    def tell(self, text: str) -> None:
        self.story.append(f"{self.now():8.3f} {text}")

    def publish(self, message: str) -> None:
        self.tell(f"decided {message}")
        _operation, (epoch, state, _left, holder), _node = json.loads(message)
        # What was restored after a failover is no new decision; a lost canary counts as open.
        known = self.decisions.setdefault(epoch, (state, holder))
        if known != (state, holder) and known[0] != "half_open":
            self.faults.append(f"two decisions have the epoch {epoch}")
        if self.fails_over_next:
            self.fails_over_next = False
            self.loop.call_later(0.004, self.fail_over)
        for link in self.links:
            link.hear(message)

    def crash_holder(self, link: "SimulatedLink") -> None:
        """The node that got the grant never sends its canary, or never tells how it went."""
        self.crashes_next = False
        node = next(node for node in self.nodes if node.link is link)
        errand = asyncio.create_task(node.crash_and_come_back())
        self.errands.add(errand)
        errand.add_done_callback(self.errands.discard)

    async def replicate(self) -> None:
        """The replica is a little behind, as asynchronous replication is."""
        while True:
            behind = self.redis.store.copy()
            await self.sleep(self.chance.choice([0.01, 0.05, 0.3]))
            self.replica = behind

    def fail_over(self) -> None:
        self.failovers.append(self.now())
        self.tell("failover: what was not replicated is lost")
        self.redis.store = self.replica.copy()
        self.clock_skew += self.chance.choice([0, 0, -50_000, 30_000])
        for link in self.links:
            link.cut("failover")


def wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class SimulatedLink:
    """One node's way to Redis: slow, lossy, cut."""

    def __init__(self, world: World, node: str) -> None:
        self.world = world
        self.node = node
        self.cut_off = False
        self.lossy = 0.0
        self._queue: asyncio.Queue[str | None] | None = None
        world.links.append(self)

    async def _travel(self) -> None:
        chance = self.world.chance
        await self.world.sleep(chance.choice([0.0005, 0.001, 0.004]) + self.world.redis_slow)
        if chance.random() < self.lossy:
            await self.world.sleep(3.0)
            raise LinkLost("lost on the way")
        if self.cut_off or self.world.redis_down:
            if chance.random() < 0.5:
                await self.world.sleep(3.0)
            raise LinkLost("unreachable")

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        await self._travel()
        newest = max(map(int, self.world.decisions), default=0)
        answer = self.world.redis.run(script, list(keys), list(arguments))
        if script == "settle" and answer[0] == "1" and int(arguments[3]) < newest:
            granted = (int(arguments[3]) - EPOCH) / 1_000_000 - 0.1  # by a clock that may be ahead
            if not any(at > granted for at in self.world.failovers):
                self.world.faults.append(f"an earlier canary's verdict counted: {arguments}")
        if script != "look":
            self.world.tell(f"{self.node}: {script} {list(arguments)[2:]} -> {answer}")
        if script == "claim" and answer[0] == "1" and self.world.crashes_next:
            self.world.crash_holder(self)
        await self._travel()
        return answer

    @contextlib.asynccontextmanager
    async def messages(self, _channel: str) -> AsyncIterator[AsyncIterator[str]]:
        await self._travel()
        self._queue = queue = asyncio.Queue()
        try:
            yield self._heard(queue)
        finally:
            if self._queue is queue:
                self._queue = None

    async def _heard(self, queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
        while (message := await queue.get()) is not None:
            yield message
        raise LinkLost("cut")

    def hear(self, message: str) -> None:
        """Messages may be lost, late, twice or in another order."""
        queue, chance = self._queue, self.world.chance
        if queue is None or self.cut_off or chance.random() < self.lossy:
            return
        for _ in range(chance.choice([1, 1, 1, 2])):
            late = chance.choice([0.0005, 0.002, 0.02]) + self.world.redis_slow
            self.world.loop.call_later(late, queue.put_nowait, message)

    def cut(self, _reason: str) -> None:
        if self._queue is not None:
            self._queue.put_nowait(None)

    async def eviction_policy(self) -> str:
        await self._travel()
        return "noeviction"

    async def forget(self, _nodes: str, _node: str) -> None:
        """Nobody leaves in order here."""

    async def close(self) -> None:
        """There is nothing to close."""


class Node:
    """One process: a breaker in the cluster, and callers."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.upstream_cut = False
        self.paused_until = 0.0
        self.running: asyncio.Task[None] | None = None
        self.incarnation = 0

    def start(self) -> None:
        self.incarnation += 1
        self.running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        now = self.world.now
        full_name = f"{self.name}.{self.incarnation}"
        self.link = SimulatedLink(self.world, full_name)
        self.breaker = CircuitBreaker(
            "op",
            trip=FailureCount(3, within=30.0),
            cooldown=COOLDOWN,
            probe_timeout=LEASE,
            clock=now,
        )
        circuits = RedisCircuits("", "sim", lease=LEASE, node=full_name, link=self.link, clock=now)
        self.circuits = circuits
        try:
            async with circuits:
                circuits.join(self.breaker)
                async with asyncio.TaskGroup() as group:
                    for _ in range(2):
                        group.create_task(self._call_on_and_on())
        finally:
            self.world.links.remove(self.link)

    async def _call_on_and_on(self) -> None:
        chance, sleep = self.world.chance, self.world.sleep
        pause = 0.2
        while True:
            await sleep(chance.uniform(0.02, pause))
            pause = 0.2
            try:
                if chance.random() < 0.3:
                    async with asyncio.timeout(0.1):
                        await self._call()
                else:
                    await self._call()
                pause = 0.8  # little can go wrong while all is well
            except CircuitOpen as refused:
                pause += 0.6 * refused.retry_after
            except (Down, TimeoutError):
                pass

    async def _call(self) -> None:
        async with self.breaker.guard() as permit:
            await self._upstream(permit)

    async def _upstream(self, permit: Any) -> None:
        canary = None
        grant = permit.grant
        # Below the breaker: what arrives at the upstream. A grant of the cluster has a fence.
        if grant is not None and grant.fence and type(grant).__name__ == "Grant":
            canary = Canary(self.name, grant.fence, self.world.now())
            self.world.canaries.append(canary)
            self.world.tell(f"{self.name}: canary with fence {grant.fence}")
        try:
            hangs = self.world.chance.random() < 0.03
            if hangs and not self.world.healed:
                self.world.pauses.append(self.world.now())
                await self.world.sleep(HANG)
            await self.world.sleep(self.world.chance.uniform(0.01, CALL))
            if self.world.upstream_down or self.upstream_cut:
                raise Down
        finally:
            if canary is not None:
                canary.ended = self.world.now()

    async def crash(self) -> None:
        self.world.tell(f"{self.name} crashes")
        assert self.running is not None
        self.link.cut_off = True  # nothing of what it does on its way out arrives
        self.running.cancel()
        await asyncio.wait({self.running})

    async def crash_and_come_back(self) -> None:
        await asyncio.sleep(self.world.chance.choice([0.0, 0.003, 0.1]))
        await self.crash()
        self.start()


def agree(world: World, nodes: list[Node]) -> bool:
    """All are where Redis says, by the same decision; and nobody is alone."""
    stored = world.redis.store.circuits.get("{sim}:circuit:op")
    state, epoch = (stored.state, stored.epoch) if stored else ("closed", 0)
    return all(
        node.circuits.joined
        and (node.breaker.state is State.CLOSED) == (state == "closed")
        and (node.breaker.epoch == epoch or state == "half_open")
        for node in nodes
    )


async def live(world: World) -> None:
    world.start()
    chance = world.chance
    nodes = world.nodes = [Node(world, name) for name in "abc"[: chance.choice([2, 3, 3])]]
    replicating = asyncio.create_task(world.replicate())
    for node in nodes:
        node.start()
    await asyncio.sleep(0.5)
    ends = world.now() + TROUBLE
    while world.now() < ends:
        await _trouble(world, nodes)
        await asyncio.sleep(chance.choice([0.05, 0.3, 1.0, 1.5]))
    _heal(world, nodes)
    deadline = world.now() + CONVERGED
    # While the upstream is well, all must be closed soon: a cooldown, a yield, a canary, gossip.
    while not agree(world, nodes):
        if world.now() > deadline:
            states = {node.name: (node.breaker.state, node.circuits.joined) for node in nodes}
            raise AssertionError(f"no agreement {CONVERGED} s after the last trouble: {states}")
        await asyncio.sleep(0.05)
    stuck = world.now() + 2 * COOLDOWN + LEASE + 1.0
    while not all(node.breaker.state is State.CLOSED for node in nodes):
        if world.now() > stuck:
            states = {node.name: node.breaker.state for node in nodes}
            raise AssertionError(f"stuck with a healthy upstream: {states}")
        await asyncio.sleep(0.05)
    _check_canaries(world)
    if world.faults:
        raise AssertionError(world.faults[0])
    replicating.cancel()
    for node in nodes:
        await node.crash()


async def _trouble(world: World, nodes: list[Node]) -> None:  # noqa: C901 - a list of troubles
    chance = world.chance
    node = chance.choice(nodes)
    match chance.choice(
        [
            *("upstream", "upstream", "failover after a decision", "failover after a decision"),
            *("redis", "slow", "failover", "cut", "lossy", "crash", "partial", "crash of a holder"),
        ]
    ):
        case "upstream":
            world.upstream_down = not world.upstream_down
            world.tell(f"the upstream is {'down' if world.upstream_down else 'up'}")
        case "redis":
            world.redis_down = not world.redis_down
            world.tell(f"Redis is {'down' if world.redis_down else 'up'}")
            if world.redis_down:
                for link in world.links:
                    link.cut("down")
        case "slow":
            world.redis_slow = chance.choice([0.0, 0.03, 0.2])
            world.tell(f"Redis takes {world.redis_slow} s more")
        case "failover":
            world.fail_over()
        case "failover after a decision":
            world.fails_over_next = True
        case "cut":
            node.link.cut_off = not node.link.cut_off
            world.tell(f"{node.name} is {'cut off' if node.link.cut_off else 'back'}")
            node.link.cut("partition")
        case "lossy":
            node.link.lossy = chance.choice([0.0, 0.3])
            world.tell(f"{node.name} loses {node.link.lossy}")
        case "partial":
            node.upstream_cut = not node.upstream_cut
            world.tell(f"{node.name} {'cannot' if node.upstream_cut else 'can'} reach the upstream")
        case "crash":
            await node.crash()
            node.start()
            await asyncio.sleep(0)
        case "crash of a holder":
            world.crashes_next = True


def _heal(world: World, nodes: list[Node]) -> None:
    world.tell("all is well again")
    world.healed = True
    world.upstream_down = world.redis_down = world.crashes_next = world.fails_over_next = False
    world.redis_slow = 0.0
    for node in nodes:
        node.upstream_cut = node.link.cut_off = False
        node.link.lossy = 0.0


def _check_canaries(world: World) -> None:
    fences = [canary.fence for canary in world.canaries]
    if len(fences) != len(set(fences)):
        raise AssertionError("two canaries with one fence")
    for canary in world.canaries:
        until = world.now() if canary.ended is None else canary.ended
        others = [
            other
            for other in world.canaries
            if other is not canary
            and other.started <= canary.started
            and (other.ended is None or other.ended > canary.started)
        ]
        # A failover may lose a grant, and a call that hangs outlives its lease: each lets one more
        # canary out.
        upset = [
            at
            for at in world.failovers + world.pauses
            if any(other.started - 0.5 < at <= until for other in others)
        ]
        if len(others) > len(upset):
            raise AssertionError(f"canaries at once: {canary} beside {others}")


def run(seed: int, scripts: type[Scripts] | None = None) -> World:
    """Live through a seed. Raises AssertionError, with the story as a note."""
    world = World(seed, scripts)
    try:
        virtual_time.run(live(world))
    except BaseException as error:
        error.add_note(f"seed {seed}\n" + "\n".join(world.story[-80:]))
        raise
    return world


if __name__ == "__main__":
    print("\n".join(run(int(sys.argv[1])).story))  # noqa: T201 - a seed's story

"""How long a caller waits, and how long a failure lasts: exact, because time is virtual."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import virtual_time
from simulation import EPOCH, SimulatedLink, World

from halfopen import CircuitBreaker, CircuitOpen, FailureCount, State
from halfopen.redis import RedisCircuits

KEY = "{bounds}:circuit:op"
COOLDOWN = 2.0
LEASE = 5.0
ON_THE_WAY = 0.02  # seconds, more than a script and its message take together
STEP = 0.001


@dataclass
class Node:
    link: SimulatedLink
    circuits: RedisCircuits
    breaker: CircuitBreaker


@dataclass
class Upstream:
    down: bool = False
    calls: int = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.down:
            raise ConnectionError


def in_virtual_time(scene: Callable[[World, Node, Node], Awaitable[None]]) -> None:
    async def live() -> None:
        world = World(seed=1)
        world.start()
        async with contextlib.AsyncExitStack() as stack:
            nodes = []
            for name in ("here", "there"):
                link = SimulatedLink(world, name)
                circuits = RedisCircuits(
                    "", "bounds", lease=LEASE, node=name, link=link, clock=world.now
                )
                await stack.enter_async_context(circuits)
                breaker = CircuitBreaker(
                    "op",
                    trip=FailureCount(3, within=30),
                    cooldown=COOLDOWN,
                    probe_timeout=LEASE,
                    clock=world.now,
                )
                nodes.append(Node(link, circuits, circuits.join(breaker)))
            await asyncio.sleep(2.5)  # settled: nothing but looks
            await scene(world, *nodes)

    virtual_time.run(live())


async def until(world: World, condition: Callable[[], bool]) -> float:
    """The seconds that it takes."""
    began = world.now()
    while not condition():
        assert world.now() < began + 20, "it never happens"
        await asyncio.sleep(STEP)
    return world.now() - began


async def looked(world: World, node: Node) -> None:
    """Wait until the next look is as far away as can be."""
    before = node.circuits.figures().round_trips
    await until(world, lambda: node.circuits.figures().round_trips > before)
    await asyncio.sleep(ON_THE_WAY)


async def open_both(world: World, here: Node, there: Node) -> None:
    here.breaker.trip()
    await until(world, lambda: there.breaker.state is State.OPEN)


async def call(node: Node, upstream: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(CircuitOpen, ConnectionError):
        await node.breaker.acall(upstream)


async def canary_of(world: World, node: Node) -> float:
    """Seconds until this node may send the canary."""
    upstream = Upstream()
    began = world.now()
    while not upstream.calls:
        await call(node, upstream)
        await asyncio.sleep(STEP)
    return world.now() - began


def test_a_slow_redis_adds_50_ms_to_one_call_of_each_node_and_cooldown():
    async def scene(world: World, here: Node, there: Node) -> None:
        await open_both(world, here, there)
        world.redis_slow = 0.2
        upstream = Upstream(down=True)

        async def timed(node: Node) -> float:
            began = world.now()
            await call(node, upstream)
            return world.now() - began

        waits = []
        for _ in range(3):
            await asyncio.sleep(COOLDOWN)
            for node in (here, there):
                waited = await asyncio.gather(*(timed(node) for _ in range(20)))
                waits += [each for each in waited if each]
        # Whoever has heard of the other's canary does not ask.
        assert 3 <= len(waits) <= 6
        assert waits == [pytest.approx(0.05)] * len(waits)
        assert upstream.calls == len(waits)

    in_virtual_time(scene)


@pytest.mark.parametrize("noticed", [True, False])
def test_what_a_failover_has_lost_is_put_right_within_a_second(noticed):
    async def scene(world: World, here: Node, there: Node) -> None:
        await looked(world, there)
        world.replica = world.redis.store.copy()
        here.breaker.trip(for_=60)
        await until(world, lambda: there.breaker.state is State.OPEN)
        if noticed:
            world.fail_over()
        else:  # the same connections go on, with another Redis at their end
            world.redis.store = world.replica.copy()
        assert KEY not in world.redis.store.circuits

        took = await until(world, lambda: KEY in world.redis.store.circuits)

        restored = world.redis.store.circuits[KEY]
        assert (restored.state, restored.epoch) == ("open", here.breaker.epoch)
        left = restored.ends - EPOCH // 1000 - world.clock_skew // 1000 - world.now() * 1000
        assert 58_000 < left <= 60_000
        assert took <= 1 + ON_THE_WAY

    in_virtual_time(scene)


def test_a_decision_whose_message_is_lost_is_known_within_a_second():
    async def scene(world: World, here: Node, there: Node) -> None:
        await looked(world, there)
        world.links.remove(there.link)
        here.breaker.trip(for_=60)

        assert await until(world, lambda: there.breaker.state is State.OPEN) <= 1 + ON_THE_WAY

    in_virtual_time(scene)


@pytest.mark.parametrize("killed", [True, False])
def test_the_next_canary_goes_out_50_ms_after_the_lease_at_the_latest(killed):
    async def scene(world: World, here: Node, there: Node) -> None:
        await open_both(world, here, there)
        await asyncio.sleep(COOLDOWN)
        hangs = asyncio.create_task(call(here, asyncio.Event().wait))
        await until(world, lambda: there.breaker.state is State.HALF_OPEN)
        if killed:
            here.link.cut_off = True
            hangs.cancel()

        assert LEASE - ON_THE_WAY <= await canary_of(world, there) <= LEASE + 0.05
        hangs.cancel()

    in_virtual_time(scene)


def test_the_next_canary_of_one_that_was_cancelled_goes_out_at_once():
    async def scene(world: World, here: Node, there: Node) -> None:
        await open_both(world, here, there)
        await asyncio.sleep(COOLDOWN)
        cancelled = asyncio.create_task(call(here, asyncio.Event().wait))
        await until(world, lambda: there.breaker.state is State.HALF_OPEN)
        cancelled.cancel()

        assert await canary_of(world, there) <= 0.05

    in_virtual_time(scene)


@pytest.mark.parametrize("phase", range(7))
def test_a_node_that_was_cut_off_is_one_of_all_again_within_two_seconds(phase):
    async def scene(world: World, here: Node, there: Node) -> None:
        here.link.cut_off = True
        here.link.cut("partition")
        await until(world, lambda: not here.circuits.joined)
        there.breaker.trip(for_=60)
        await asyncio.sleep(5 + 0.2 * phase)
        here.link.cut_off = False

        took = await until(world, lambda: here.breaker.state is State.OPEN)

        assert here.circuits.joined
        assert took <= 2

    in_virtual_time(scene)

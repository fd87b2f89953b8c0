"""A replica that lags behind is promoted: what it has lost is put right by who knows it."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from redis_server import RedisServer
from test_redis_circuits import Upstream, call, eventually
from way import Way

from halfopen import CircuitBreaker, FailureCount, State
from halfopen.redis import RedisCircuits

pytestmark = pytest.mark.anyio

COOLDOWN = 0.3
LEASE = 20.0
AT_ONCE = ("--repl-diskless-sync-delay", "0")  # more replicas are not waited for


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Cluster:
    """Nodes, and the two servers behind the address that they know."""

    primary: RedisServer
    replica: RedisServer
    stack: contextlib.AsyncExitStack
    ways: list[Way]

    async def node(self) -> CircuitBreaker:
        way = await self.stack.enter_async_context(Way(self.primary.port))
        self.ways.append(way)
        circuits = RedisCircuits(way.url, "failover", lease=LEASE)
        await self.stack.enter_async_context(circuits)
        breaker = CircuitBreaker("op", trip=FailureCount(3, within=30), cooldown=COOLDOWN)
        return circuits.join(breaker)

    def fail_over(self) -> None:
        self.primary.kill()
        self.replica.promote()

    async def stored(self) -> tuple[str, int]:
        async with Redis(port=self.replica.port, decode_responses=True) as client:
            state, epoch = await client.hmget("{failover}:circuit:op", "state", "epoch")
        return state or "closed", int(epoch or 0)

    async def put_right(self, state: str, epoch: int) -> None:
        """Wait for it. It takes a second at the most, and here generously three."""
        gives_up = time.monotonic() + 3
        while await self.stored() != (state, epoch):
            assert time.monotonic() < gives_up, await self.stored()
            await asyncio.sleep(0.02)


@pytest.fixture
async def cluster(redis_server, tmp_path):
    folders = [tmp_path / "primary", tmp_path / "replica"]
    for folder in folders:
        folder.mkdir()
    with RedisServer(folders[0], *AT_ONCE) as primary, RedisServer(folders[1]) as replica:
        replica.follow(primary)
        async with contextlib.AsyncExitStack() as stack:
            yield Cluster(primary, replica, stack, [])


async def opened(*breakers):
    upstream = Upstream()
    for _ in range(3):
        await call(breakers[0], upstream)
    await eventually(lambda: all(each.state is State.OPEN for each in breakers))


async def test_an_opening_that_was_lost(cluster):
    here, there = [await cluster.node() for _ in range(2)]
    cluster.replica.lag(cluster.primary)
    here.trip(for_=60)
    await eventually(lambda: there.state is State.OPEN)
    cluster.fail_over()
    assert (await cluster.stored())[0] == "closed"
    for way in cluster.ways:
        way.lead_to(cluster.replica.port)

    await cluster.put_right("open", here.epoch)
    assert [here.state, there.state] == [State.OPEN, State.OPEN]
    assert there.snapshot().retry_after > 50


async def test_a_closing_that_was_lost(cluster):
    here, there = [await cluster.node() for _ in range(2)]
    await opened(here, there)
    await asyncio.sleep(COOLDOWN)
    cluster.replica.lag(cluster.primary)
    upstream = Upstream()
    upstream.down = False
    assert await call(here, upstream) == "up"
    await eventually(lambda: there.state is State.CLOSED)
    cluster.fail_over()
    assert (await cluster.stored())[0] == "open"
    for way in cluster.ways:
        way.lead_to(cluster.replica.port)

    await cluster.put_right("closed", there.epoch)
    assert [here.state, there.state] == [State.CLOSED, State.CLOSED]


async def test_a_grant_that_was_lost_and_made_again_the_first_verdict_is_void(cluster):
    here, there = [await cluster.node() for _ in range(2)]
    await opened(here, there)
    await asyncio.sleep(COOLDOWN)
    cluster.replica.lag(cluster.primary)
    canaries = []
    ends = {}

    async def canary(name, error=None):
        canaries.append(name)
        ends[name] = asyncio.Event()
        await ends[name].wait()
        if error is not None:
            raise error

    first = asyncio.create_task(here.acall(canary, "first"))
    await eventually(lambda: there.state is State.HALF_OPEN)
    for way in cluster.ways:
        way.cut()
    cluster.fail_over()
    cluster.primary, ways = cluster.replica, list(cluster.ways)
    # Whoever has never heard of the grant is given another one.
    newcomer = await cluster.node()
    await eventually(lambda: newcomer.state is State.OPEN)
    second = asyncio.create_task(newcomer.acall(canary, "second", ConnectionError("down")))
    await eventually(lambda: canaries == ["first", "second"])
    granted = await cluster.stored()
    for way in ways:
        way.lead_to(cluster.replica.port)
    await eventually(lambda: here.epoch == there.epoch == granted[1])

    ends["first"].set()
    await first
    assert await cluster.stored() == granted
    assert here.state is State.HALF_OPEN
    ends["second"].set()
    with pytest.raises(ConnectionError):
        await second
    await eventually(lambda: here.state is there.state is State.OPEN)


async def test_a_grant_that_was_lost_keeps_others_out_while_its_canary_is_on_its_way(cluster):
    here, there = [await cluster.node() for _ in range(2)]
    await opened(here, there)
    await asyncio.sleep(COOLDOWN)
    cluster.replica.lag(cluster.primary)
    goes_on = asyncio.Event()
    upstream = Upstream()
    upstream.down = False

    first = asyncio.create_task(here.acall(goes_on.wait))
    await eventually(lambda: there.state is State.HALF_OPEN)
    fence = here.epoch
    cluster.fail_over()
    for way in cluster.ways:
        way.lead_to(cluster.replica.port)
    await cluster.put_right("open", fence)
    await call(there, upstream)
    assert upstream.calls == 0

    goes_on.set()
    await first
    await eventually(lambda: there.state is State.CLOSED)

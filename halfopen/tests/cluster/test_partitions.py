"""Messages that are lost, canaries that never end, and nodes that are cut off."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from redis_server import RedisServer
from test_redis_circuits import Upstream, call, eventually
from way import Way

from halfopen import CircuitBreaker, CircuitOpen, FailureCount, State, StateChanged
from halfopen.redis import RedisCircuits

pytestmark = pytest.mark.anyio

COOLDOWN = 0.2
LEASE = 0.5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Node:
    way: Way
    circuits: RedisCircuits
    breaker: CircuitBreaker
    upstream: Upstream

    async def call(self) -> object:
        return await call(self.breaker, self.upstream)


@contextlib.asynccontextmanager
async def pair(server: RedisServer, name: str) -> AsyncIterator[list[Node]]:
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for _ in range(2):
            way = await stack.enter_async_context(Way(server.port))
            circuits = RedisCircuits(way.url, name, lease=LEASE)
            await stack.enter_async_context(circuits)
            breaker = CircuitBreaker(
                "op", trip=FailureCount(3, within=30), cooldown=COOLDOWN, probe_timeout=LEASE
            )
            nodes.append(Node(way, circuits, circuits.join(breaker), Upstream()))
        await eventually(lambda: all(each.circuits.joined for each in nodes))
        yield nodes


async def open_both(here: Node, there: Node) -> None:
    for _ in range(3):
        await here.call()
    await eventually(lambda: here.breaker.state is there.breaker.state is State.OPEN)


async def close_both(here: Node, there: Node) -> None:
    here.upstream.down = there.upstream.down = False

    async def both_closed() -> None:
        while not here.breaker.state is there.breaker.state is State.CLOSED:
            await here.call()
            await there.call()
            await asyncio.sleep(0.01)

    await asyncio.wait_for(both_closed(), 10)


async def test_a_decision_whose_message_was_lost_is_seen_at_the_next_look(redis_server):
    async with pair(redis_server, "unheard") as (here, there):
        async with Redis.from_url(redis_server.url) as client:
            await client.client_kill_filter(_type="pubsub")
        await open_both(here, there)


async def test_a_message_that_comes_twice_or_late_changes_nothing(redis_server):
    async with (
        pair(redis_server, "again") as (here, there),
        Redis.from_url(redis_server.url, decode_responses=True) as client,
        client.pubsub(ignore_subscribe_messages=True) as heard,
    ):
        channel = "{again}:circuits"
        await heard.subscribe(channel)
        await open_both(here, there)
        await close_both(here, there)
        messages = []
        async for message in heard.listen():
            messages.append(message["data"])
            if json.loads(message["data"])[1][1] == "closed":
                break
        assert [json.loads(each)[1][1] for each in messages] == ["open", "half_open", "closed"]
        changes = []
        for node in (here, there):
            node.breaker.on(StateChanged, changes.append)

        for message in [*reversed(messages), *messages]:
            assert await client.publish(channel, message) == 3
        here.breaker.trip()
        await eventually(lambda: there.breaker.state is State.OPEN)

        assert [change.new for change in changes] == [State.OPEN, State.OPEN]


async def test_a_canary_that_hangs_makes_way_when_its_lease_is_over_and_its_verdict_is_void(
    redis_server,
):
    async with pair(redis_server, "hung") as (here, there):
        await open_both(here, there)
        await asyncio.sleep(COOLDOWN)
        goes_on = asyncio.Event()
        hangs = asyncio.create_task(here.breaker.acall(goes_on.wait))
        await eventually(lambda: there.breaker.state is State.HALF_OPEN)
        async with Redis.from_url(redis_server.url, decode_responses=True) as client:
            lease_ends = int(await client.hget("{hung}:circuit:op", "until"))
            there.upstream.calls = 0
            while not there.upstream.calls:
                await there.call()
                await asyncio.sleep(0.005)
            await eventually(lambda: there.breaker.state is State.OPEN)
            opened_again = int(await client.hget("{hung}:circuit:op", "changed"))

        # In milliseconds of Redis' clock; 50 where nobody else uses the machine.
        assert 0 <= opened_again - lease_ends < 500
        there.breaker.trip(for_=60)
        await eventually(lambda: here.breaker.epoch == there.breaker.epoch)
        goes_on.set()
        await hangs
        with pytest.raises(CircuitOpen):
            await here.breaker.acall(here.upstream)
        assert there.breaker.state is State.OPEN


HOLDER = """
import asyncio, sys
from halfopen import CircuitBreaker, CircuitOpen, FailureCount
from halfopen.redis import RedisCircuits

async def main():
    async with RedisCircuits(sys.argv[1], "stopped", lease=0.5) as circuits:
        rule = FailureCount(3, within=30)
        breaker = circuits.join(CircuitBreaker("op", trip=rule, cooldown=0.2))
        async def answer():
            print("sent", flush=True)
            await asyncio.sleep(0.1)
        breaker.trip(for_=0.05)
        while True:
            try:
                await breaker.acall(answer)
            except CircuitOpen:
                await asyncio.sleep(0.005)
            else:
                break
        await asyncio.sleep(0.3)
        print(breaker.state, flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def test_the_verdict_of_a_holder_that_was_stopped_is_void_once_another_has_tried(
    redis_server,
):
    async with pair(redis_server, "stopped") as (here, _there):
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLDER, redis_server.url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), 20) == b"sent\n"
        holder.send_signal(signal.SIGSTOP)
        here.upstream.calls = 0
        async with asyncio.timeout(10):
            while not here.upstream.calls:
                await here.call()
                await asyncio.sleep(0.005)
        here.breaker.trip(for_=60)
        holder.send_signal(signal.SIGCONT)

        # Its canary was answered, and it hears that this came too late.
        assert await asyncio.wait_for(holder.stdout.readline(), 20) == b"open\n"
        assert here.breaker.state is State.OPEN
        await holder.communicate(b"\n")


async def test_a_slow_redis_costs_one_call_in_each_cooldown_50_ms(redis_server):
    async with pair(redis_server, "slow") as (here, there):
        await open_both(here, there)
        here.way.delay = 0.4
        for _ in range(2):
            await asyncio.sleep(COOLDOWN)
            here.upstream.calls = 0
            started = time.monotonic()
            for _ in range(20):
                await here.call()
            # A claim that waited for its answer would take 0.8 s.
            assert time.monotonic() - started < 0.6
            assert here.upstream.calls == 1
        here.way.delay = 0.0
        await close_both(here, there)


async def test_a_node_without_redis_decides_alone_and_tells_when_it_is_back(redis_server):
    async with pair(redis_server, "no-redis") as (here, there):
        there.upstream.down = False
        here.way.cut()
        await eventually(lambda: not here.circuits.joined)
        for _ in range(3):
            await here.call()
        assert here.breaker.state is State.OPEN
        assert await there.call() == "up"
        here.breaker.trip(for_=60)

        here.way.heal()
        await eventually(lambda: there.breaker.state is State.OPEN)
        there.breaker.reset()
        await eventually(lambda: here.breaker.state is State.CLOSED)


async def test_a_node_without_the_upstream_opens_the_circuit_of_all_only_once(redis_server):
    async with pair(redis_server, "no-upstream") as (here, there):
        there.upstream.down = False
        await open_both(here, there)
        async with asyncio.timeout(10):
            while there.breaker.state is not State.CLOSED:
                await there.call()
                await here.call()
                await asyncio.sleep(0.01)
        changes = []
        there.breaker.on(StateChanged, changes.append)

        for _ in range(100):
            await here.call()
            assert await there.call() == "up"
            await asyncio.sleep(0.01)
        assert changes == []


async def test_a_node_without_either_is_one_of_all_again_once_it_has_both(redis_server):
    async with pair(redis_server, "neither") as (here, there):
        there.upstream.down = False
        here.way.cut()
        await eventually(lambda: not here.circuits.joined)
        for _ in range(10):
            await here.call()
            assert await there.call() == "up"
            await asyncio.sleep(0.01)
        assert here.breaker.state is State.OPEN
        here.way.heal()

        await close_both(here, there)
        await eventually(lambda: here.circuits.joined)
        await eventually(lambda: here.breaker.epoch == there.breaker.epoch)

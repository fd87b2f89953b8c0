"""What may happen when Redis, a node, or the way between them fails: the real ones."""

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import time
from collections import Counter

import pytest
from redis.asyncio import Redis
from redis_server import RedisServer
from test_redis_circuits import COOLDOWN, Upstream, call, eventually, nodes

import halfopen.redis
from halfopen import CircuitBreaker, FailureCount, State
from halfopen.redis import RedisCircuits, scripts
from halfopen.redis.link import RedisLink

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path, redis_server):
    """A Redis for this test alone, to be killed and paused."""
    with RedisServer(tmp_path) as server:
        yield server


async def opened(breakers, upstream):
    for _ in range(3):
        await call(breakers[0], upstream)
    await eventually(lambda: all(b.state is State.OPEN for b in breakers))


async def test_each_node_goes_on_alone_while_redis_is_dead_and_joins_again(server):
    async with nodes(server, 2, "dead") as (breakers, circuits):
        upstream = Upstream()
        server.kill()
        await eventually(lambda: not any(each.joined for each in circuits))

        for breaker in breakers:
            for _ in range(4):
                await call(breaker, upstream)

        # Three failures each: nobody hears of the other's.
        assert [b.state for b in breakers] == [State.OPEN, State.OPEN]
        assert upstream.calls == 6
        await asyncio.sleep(COOLDOWN)
        upstream.down = False
        for breaker in breakers:
            await call(breaker, upstream)
        assert [b.state for b in breakers] == [State.CLOSED, State.CLOSED]
        assert upstream.calls == 8
        server.start()
        await eventually(lambda: all(each.joined for each in circuits))
        upstream.down = True
        await opened(breakers, upstream)


async def test_a_paused_redis_costs_a_claim_no_more_than_its_patience(server):
    async with nodes(server, 2, "paused") as (breakers, circuits):
        upstream = Upstream()
        await opened(breakers, upstream)
        upstream.down = False
        server.pause()
        await asyncio.sleep(COOLDOWN)

        started = time.monotonic()
        await call(breakers[0], upstream)
        took = time.monotonic() - started

        assert breakers[0].state is State.CLOSED
        assert took < 10 * halfopen.redis.circuit.CLAIM_PATIENCE
        server.resume()
        await eventually(lambda: all(each.joined for each in circuits))
        await eventually(lambda: all(b.state is State.CLOSED for b in breakers))


async def test_a_node_restores_decisions_that_a_failover_lost(server):
    async with nodes(server, 2, "lost") as (breakers, _circuits):
        await opened(breakers, Upstream())
        breakers[0].trip(for_=60)
        await eventually(lambda: breakers[1].snapshot().retry_after > 50)
        async with Redis.from_url(server.url, decode_responses=True) as client:
            await client.delete("{lost}:circuit:op")

            await eventually_stored(client, "{lost}:circuit:op", "open")

        async with RedisCircuits(server.url, "lost") as late:
            newcomer = late.join(CircuitBreaker("op", trip=FailureCount(3, within=30)))
            await eventually(lambda: newcomer.state is State.OPEN)


async def eventually_stored(client, key, state):
    async with asyncio.timeout(5):
        while await client.hget(key, "state") != state:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)


async def test_a_cancelled_canary_is_granted_again_at_once(server):
    async with nodes(server, 2, "cancelled", lease=30) as (breakers, _):
        upstream = Upstream()
        await opened(breakers, upstream)
        await asyncio.sleep(COOLDOWN)
        canary = asyncio.create_task(breakers[0].acall(asyncio.sleep, 60))
        await eventually(lambda: breakers[1].state is State.HALF_OPEN)
        canary.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await canary
        upstream.down = False

        async with asyncio.timeout(5):
            while breakers[1].state is not State.CLOSED:
                await call(breakers[1], upstream)
                await asyncio.sleep(0.005)


HOLDER = """
import asyncio, sys
from halfopen import CircuitBreaker, FailureCount
from halfopen.redis import RedisCircuits, scripts
from halfopen.redis.link import RedisLink

async def main():
    async with RedisCircuits(sys.argv[1], "killed", lease=0.4) as circuits:
        rule = FailureCount(3, within=30)
        breaker = circuits.join(CircuitBreaker("op", trip=rule, cooldown=0.15))
        breaker.trip(for_=0.05)
        async def hang():
            print("sent", flush=True)
            await asyncio.sleep(60)
        while True:
            try:
                await breaker.acall(hang)
            except Exception:
                await asyncio.sleep(0.005)

asyncio.run(main())
"""


async def test_the_canary_of_a_killed_holder_goes_to_another_once_its_lease_is_over(server):
    async with nodes(server, 1, "killed", lease=0.4) as ((breaker,), _):
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, server.url, stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), 20) == b"sent\n"
        holder.kill()
        await holder.wait()
        upstream = Upstream()
        upstream.down = False

        # The lease began before it was killed.
        started = time.monotonic()
        async with asyncio.timeout(5):
            while breaker.state is not State.CLOSED:
                await call(breaker, upstream)
                await asyncio.sleep(0.005)

        assert upstream.calls == 1
        assert time.monotonic() - started < 3 * 0.4


class CountingLink(RedisLink):
    attempts = 0

    def messages(self, channel):
        self.attempts += 1
        return super().messages(channel)


async def test_the_log_says_once_that_redis_is_away_and_once_that_it_is_back(tmp_path, caplog):
    caplog.set_level("INFO", "halfopen.redis")
    server = RedisServer(tmp_path)
    link = CountingLink(server.url)
    async with RedisCircuits(server.url, "said", link=link) as circuits:
        await eventually(lambda: link.attempts >= 3)
        with server:
            await eventually(lambda: circuits.joined)
        attempts = link.attempts
        await eventually(lambda: link.attempts >= attempts + 3)

    said = [(record.levelname, record.getMessage().split(":")[1]) for record in caplog.records]
    assert said == [
        ("WARNING", " this node goes on alone"),
        ("INFO", " joined, nodes alive"),
        ("WARNING", " this node goes on alone"),
    ]


HEALTHY_CALLS = 10_000


async def test_healthy_calls_send_redis_nothing_but_one_look_a_second_and_node(server):
    async with (
        nodes(server, 2, "healthy") as (breakers, circuits),
        Redis.from_url(server.url) as client,
        Redis.from_url(server.url) as watcher,
    ):
        await client.ping()  # its connection is made before
        upstream = Upstream()
        upstream.down = False
        before = [each.figures().round_trips for each in circuits]

        def looked_on() -> bool:
            now = [each.figures().round_trips for each in circuits]
            return all(after >= old + 3 for old, after in zip(before, now, strict=True))

        async with watcher.monitor() as monitor, asyncio.timeout(30):
            while upstream.calls < HEALTHY_CALLS or not looked_on():
                for breaker in breakers:
                    for _ in range(100):
                        await breaker.acall(upstream)
                await asyncio.sleep(0.005)
            await client.echo("now")
            sent = await commands_until_echo(monitor)

    look = hashlib.sha1(scripts.LOOK.encode()).hexdigest()
    assert {command for _, _, command in sent} == {f"EVALSHA {look}"}
    took = sent[-1][0] - sent[0][0]
    by_node = Counter(connection for _, connection, _ in sent)
    assert len(by_node) == 2
    # The first look is followed by one more at once.
    assert max(by_node.values()) <= took + 2


async def commands_until_echo(monitor):
    """What clients have sent since `monitor` began: when, on which connection, and what."""
    sent = []
    async for seen in monitor.listen():
        if seen["command"].startswith("ECHO"):
            return sent
        if seen["client_type"] != "lua":
            words = seen["command"].split()
            sent.append((seen["time"], seen["client_port"], " ".join(words[:2])))
    raise AssertionError

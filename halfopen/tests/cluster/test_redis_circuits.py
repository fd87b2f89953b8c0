"""Breakers of one name on several nodes, with a Redis of the test's own between them."""

import asyncio
import contextlib
import re
import time
from pathlib import Path

import pytest

from halfopen import CircuitBreaker, CircuitOpen, FailureCount, State
from halfopen.redis import RedisCircuits

pytestmark = pytest.mark.anyio

COOLDOWN = 0.15


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Upstream:
    """Counts its calls, and fails while it is down."""

    def __init__(self) -> None:
        self.down = True
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.down:
            raise ConnectionError("down")
        return "up"


async def eventually(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - it happens in other tasks, over a real socket
            await asyncio.sleep(0.005)


async def call(breaker, upstream):
    with contextlib.suppress(ConnectionError, CircuitOpen):
        return await breaker.acall(upstream)


@contextlib.asynccontextmanager
async def nodes(redis_server, count, name, **settings):
    async with contextlib.AsyncExitStack() as stack:
        breakers = []
        circuits = []
        for _ in range(count):
            each = await stack.enter_async_context(
                RedisCircuits(redis_server.url, name, **settings)
            )
            breaker = CircuitBreaker("op", trip=FailureCount(3, within=30), cooldown=COOLDOWN)
            breakers.append(each.join(breaker))
            circuits.append(each)
        assert all(each.joined for each in circuits)
        yield breakers, circuits


async def test_failures_of_all_nodes_add_up_and_open_all(redis_server):
    async with nodes(redis_server, 3, "add-up") as (breakers, _):
        upstream = Upstream()

        for breaker in breakers:
            await call(breaker, upstream)

        await eventually(lambda: all(b.state is State.OPEN for b in breakers))
        assert upstream.calls == 3


async def test_one_canary_for_all_nodes_and_all_hear_of_its_success(redis_server):
    async with nodes(redis_server, 3, "canary") as (breakers, _):
        upstream = Upstream()
        for _ in range(3):
            await call(breakers[0], upstream)
        await eventually(lambda: all(b.state is State.OPEN for b in breakers))
        upstream.calls = 0
        gate = asyncio.Event()
        upstream.down = False

        async def slow():
            upstream.calls += 1
            await gate.wait()

        await eventually(lambda: all(b.snapshot().retry_after <= 0 for b in breakers))
        async with asyncio.TaskGroup() as group:
            for breaker in breakers:
                for _ in range(20):
                    group.create_task(call(breaker, slow))
            await eventually(lambda: upstream.calls > 0)
            await asyncio.sleep(0.05)
            assert upstream.calls == 1
            gate.set()
        await eventually(lambda: all(b.state is State.CLOSED for b in breakers))


async def test_a_failed_canary_opens_all_again(redis_server):
    async with nodes(redis_server, 2, "failed") as (breakers, _):
        upstream = Upstream()
        for _ in range(3):
            await call(breakers[0], upstream)
        await eventually(lambda: all(b.state is State.OPEN for b in breakers))
        upstream.calls = 0
        started = time.monotonic()
        while time.monotonic() - started < 8 * COOLDOWN:
            for breaker in breakers:
                await call(breaker, upstream)
            await asyncio.sleep(0.002)

        assert 1 < upstream.calls <= 8


async def test_an_operators_word_reaches_all_nodes(redis_server):
    async with nodes(redis_server, 2, "operator") as ((here, there), _):
        release = here.isolate()
        await eventually(lambda: there.state is State.ISOLATED)
        release()
        await eventually(lambda: there.state is State.CLOSED)
        here.trip(for_=60)
        await eventually(lambda: there.state is State.OPEN)
        assert 55 < there.snapshot().retry_after <= 60
        there.reset()
        await eventually(lambda: here.state is State.CLOSED)


async def test_the_example_of_the_readme_is_one_circuit_in_two_programs(redis_server):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (example,) = (each for each in examples if "RedisCircuits" in each)
    programs = [{}, {}]
    for program in programs:
        exec(compile(example, "README.md", "exec", dont_inherit=True), program)
    here, there = [program["payments"] for program in programs]
    upstream = Upstream()
    both_serve = asyncio.Barrier(2)

    async def fail():
        await both_serve.wait()
        for _ in range(3):
            await call(here, upstream)
        await all_open()

    async def look_on():
        await both_serve.wait()
        await all_open()

    async def all_open():
        await eventually(lambda: here.state is there.state is State.OPEN)

    async with asyncio.TaskGroup() as group:
        for program, serve in zip(programs, (fail, look_on), strict=True):
            group.create_task(program["run"](redis_server.url, serve))


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1?nonsense=1"])
async def test_an_address_that_redis_py_does_not_know_is_refused_at_once(url):
    with pytest.raises(ValueError, match="redis"):
        RedisCircuits(url, "shop")

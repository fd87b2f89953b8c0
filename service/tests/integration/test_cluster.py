"""Services that name the same Redis act as one."""

import asyncio
import contextlib
import subprocess

import pytest
from redis.asyncio import Redis

from mock_upstream import Fault, MockUpstream

from .certificates import Certificates
from .conftest import Start, free_port
from .scraping import scrape

pytestmark = [pytest.mark.anyio, pytest.mark.needs("redis-server")]

EVENT = {"userId": "1", "title": "Standup"}
COOLDOWN = 0.4
NODES = ("cluster_nodes", frozenset())


@pytest.fixture
def redis(needs, tmp_path):
    """The address of a Redis, and its process."""
    port = free_port()
    command = [
        needs("redis-server"),
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", tmp_path, "--save", ""),
        *("--logfile", tmp_path / "log"),
    ]
    with subprocess.Popen(command) as server:
        yield f"redis://127.0.0.1:{port}", server
        server.kill()


@pytest.fixture
def redis_url(redis) -> str:
    url: str = redis[0]
    return url


@pytest.fixture
def tls_redis_url(needs, tmp_path, certificates):
    """A Redis that is reached by TLS alone."""
    port = free_port()
    command = [
        needs("redis-server"),
        *("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"),
        *("--tls-cert-file", certificates.server, "--tls-key-file", certificates.server_key),
        *("--tls-ca-cert-file", certificates.ca, "--tls-auth-clients", "no"),
        *("--dir", tmp_path, "--save", "", "--logfile", tmp_path / "log"),
    ]
    with subprocess.Popen(command) as server:
        yield f"rediss://127.0.0.1:{port}"
        server.kill()


async def until(condition) -> None:
    """What happens in other tasks, over real sockets, is looked for again and again."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def two_nodes(start: Start, redis_url: str, **settings: object):
    values = {"cluster_url": redis_url, "breaker_cooldown": COOLDOWN, **settings}
    async with start(**values) as here, start(**values) as there:

        async def both_know() -> bool:
            found = [await scrape(client) for client in (here, there)]
            return all(each.get(NODES) == 2 for each in found)

        await until(both_know)
        yield here, there


async def add(client) -> tuple[int, str]:
    async with client.post("/api/addEvent", json=EVENT) as response:
        body = await response.json()
        return response.status, body.get("type", "")


async def refused(client) -> bool:
    return (await add(client))[1] == "/problems/circuit-open"


async def added(client) -> bool:
    return (await add(client))[0] == 200


async def test_a_circuit_that_opens_on_one_node_is_open_on_all(
    start: Start, redis_url: str, mock: MockUpstream
):
    async with two_nodes(start, redis_url) as (here, there):
        mock.faults.set("addEvent", Fault(error_rate=1.0, status=500))
        for _ in range(2):
            await add(here)
        await add(there)

        for client in (here, there):
            await until(lambda client=client: refused(client))
        async with there.get("/readyz") as ready:
            assert "open" in (await ready.text())


async def test_one_canary_closes_it_on_all(start: Start, redis_url: str, mock: MockUpstream):
    async with two_nodes(start, redis_url) as (here, there):
        mock.faults.set("addEvent", Fault(error_rate=1.0, status=500))
        for _ in range(3):
            await add(here)
        mock.faults.set("addEvent", Fault())
        for client in (there, here):
            await until(lambda client=client: added(client))

        async def told() -> bool:
            found = [await scrape(client) for client in (here, there)]
            return sum(each.of("cluster_claims_total", outcome="granted") for each in found) >= 1

        await until(told)


async def test_a_client_has_one_rate_for_all_nodes(start: Start, redis_url: str):
    async with two_nodes(start, redis_url, rate_limit="40/hour") as (here, there):
        statuses = []
        for _ in range(40):
            for client in (here, there):
                async with client.get("/api/getUsers") as response:
                    statuses.append(response.status)

        assert 36 <= statuses.count(200) <= 44
        assert statuses.count(429) == 80 - statuses.count(200)


async def test_nodes_share_the_floor_of_the_retry_budget(start: Start, redis_url: str):
    async with start() as alone:
        assert (await scrape(alone)).of("retry_budget_remaining") == 10
    async with two_nodes(start, redis_url) as nodes:
        for client in nodes:
            assert (await scrape(client)).of("retry_budget_remaining") == 5


async def test_while_redis_is_dead_each_node_keeps_its_share_of_the_rate(start: Start, redis):
    url, server = redis
    async with two_nodes(start, url, rate_limit="40/hour") as nodes:
        server.kill()

        async def alone() -> bool:
            found = [await scrape(client) for client in nodes]
            return all(each.of("cluster_joined") == 0 for each in found)

        await until(alone)
        admitted = []
        for client in nodes:
            statuses = []
            for _ in range(40):
                async with client.get("/api/getUsers") as response:
                    statuses.append(response.status)
            admitted.append(statuses.count(200))

        assert admitted == [20, 20]


async def test_nodes_reach_redis_by_tls(start: Start, tls_redis_url: str, certificates):
    url = f"{tls_redis_url}?ssl_ca_certs={certificates.ca}"
    async with (
        two_nodes(start, url, rate_limit="40/hour") as (here, _),
        Redis.from_url(url) as stored,
    ):
        # Leases have a connection of their own.
        async def leased() -> bool:
            async with here.get("/api/getUsers"):
                return bool(await stored.keys("*:rate:*"))

        await until(leased)


async def test_a_redis_of_another_authority_is_one_line_in_the_log(
    start: Start, needs, tls_redis_url: str, tmp_path, caplog, monkeypatch
):
    # On a busy machine the first attempt must not end before its handshake.
    monkeypatch.setattr("halfopen.redis.circuits.PATIENCE", 10.0)
    other = Certificates(needs("openssl"), tmp_path)
    async with start(cluster_url=f"{tls_redis_url}?ssl_ca_certs={other.ca}") as client:
        assert (await add(client))[0] == 200
        assert (await scrape(client)).of("cluster_joined") == 0

    (line,) = [each for each in caplog.records if each.name == "halfopen.redis"]
    assert "this node goes on alone" in line.getMessage()
    assert "certificate verify failed" in line.getMessage()


async def test_a_node_serves_while_redis_is_not_there(start: Start):
    async with start(cluster_url=f"redis://127.0.0.1:{free_port()}") as client:
        assert (await add(client))[0] == 200
        async with client.get("/readyz") as response:
            assert response.status == 200
        assert (await scrape(client)).of("cluster_joined") == 0

"""Which connection a call gets, and when there is none."""

import asyncio
import resource
import socket

import pytest

from event_service.libs.http_client import (
    ConnectFailed,
    HttpClient,
    OutOfResources,
    Progress,
    TimedOut,
    parse_base_url,
)
from event_service.libs.http_client.addresses import Addresses

from .wires import Clock, answer_ok, client_of, fetch, peer, until

pytestmark = pytest.mark.anyio


class Held:
    """A script that answers each call when the test says so."""

    def __init__(self):
        self.calls = []

    async def __call__(self, call):
        done = asyncio.get_running_loop().create_future()
        self.calls.append((call, done))
        await done
        await call.answer(call.target.encode())

    def release(self, number):
        self.calls[number][1].set_result(None)


async def test_the_last_connection_used_is_used_first():
    held = Held()
    async with peer(held) as server, client_of(server.url) as client:
        calls = [asyncio.create_task(fetch(client, f"/{n}")) for n in range(3)]
        await until(lambda: len(held.calls) == 3)
        for n in (1, 0, 2):
            held.release(n)
            await calls[int(held.calls[n][0].target[1:])]
        server.script = answer_ok
        last = held.calls[2][0]
        await fetch(client)
        assert server.calls[-1].number == last.number + 1
        assert server.calls[-1]._writer is last._writer
    assert server.connections == 3


async def test_no_more_connections_than_there_may_be_and_calls_wait_in_turn():
    held = Held()
    async with peer(held) as server, client_of(server.url, connections=2) as client:
        calls = []
        for n in range(6):
            calls.append(asyncio.create_task(fetch(client, f"/{n}")))
            await asyncio.sleep(0)
        await until(lambda: len(held.calls) == 2)
        assert (client.connections, client.waiting) == (2, 4)
        for n in range(6):
            await until(lambda n=n: len(held.calls) > n)
            held.release(n)
        assert [body for _, body in await asyncio.gather(*calls)] == [b"/%d" % n for n in range(6)]
        assert sorted(call.target for call, _ in held.calls[:2]) == ["/0", "/1"]
        assert [call.target for call, _ in held.calls[2:]] == ["/2", "/3", "/4", "/5"]
    assert server.connections == 2


async def test_the_wait_for_a_connection_is_not_the_peers_time():
    """Calls that wait ten times as long as a call may take all end well."""

    async def script(call):
        await asyncio.sleep(0.02)
        await call.answer()

    async with peer(script) as server, client_of(server.url, connections=1) as client:
        calls = [fetch(client, time_limit=0.2) for _ in range(30)]
        assert await asyncio.gather(*calls) == [(200, b"{}")] * 30
    assert server.connections == 1


async def test_a_caller_who_stops_waiting_leaves_no_gap():
    held = Held()
    async with peer(held) as server, client_of(server.url, connections=1) as client:
        calls = []
        for n in range(4):
            calls.append(asyncio.create_task(fetch(client, f"/{n}")))
            await asyncio.sleep(0)
        await until(lambda: held.calls)
        calls[1].cancel()
        await asyncio.sleep(0)
        assert client.waiting == 2
        held.release(0)
        await until(lambda: client.waiting == 1, pause=0)
        calls[2].cancel()  # while the connection is on its way to it
        await until(lambda: len(held.calls) == 2)
        held.release(1)
        assert await calls[3] == (200, b"/3")
        assert client.waiting == 0
        assert [call.target for call, _ in held.calls] == ["/0", "/3"]


async def test_a_failed_call_lets_the_next_one_make_a_connection():
    async def script(call):
        if call.target == "/bad":
            call.reset()
        else:
            await call.answer()

    async with peer(script) as server, client_of(server.url, connections=1) as client:
        calls = [fetch(client, "/bad" if n % 2 else "/good") for n in range(10)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[::2] == [(200, b"{}")] * 5
        assert client.connections <= 1


async def test_a_repeated_call_gets_a_new_connection_although_there_may_be_no_more():
    held = Held()

    async def hang_up(call):
        call.hang_up()

    async with peer(held) as server, client_of(server.url, connections=2) as client:
        calls = [asyncio.create_task(fetch(client, f"/{n}")) for n in range(2)]
        await until(lambda: len(held.calls) == 2)
        held.release(0)
        held.release(1)
        await asyncio.gather(*calls)
        server.script = lambda call: hang_up(call) if call.number > 1 else answer_ok(call)
        assert await fetch(client, "/again") == (200, b"{}")
        assert [call.target for call in server.calls].count("/again") == 2
        assert client.connections <= 2


async def test_a_connection_idle_for_longer_than_it_may_be_is_not_used():
    clock = Clock()
    async with peer(answer_ok) as server, client_of(server.url, clock=clock) as client:
        await fetch(client)
        clock.now += 3.9
        await fetch(client)
        assert server.connections == 1
        clock.now += 4.1
        await fetch(client)
        assert server.connections == 2


@pytest.mark.parametrize(
    ("hint", "idle", "connections"),
    [(3, 1.9, 1), (3, 2.1, 2), (1, 0.4, 1), (1, 0.6, 2), (60, 4.1, 2)],
)
async def test_a_peer_that_says_how_long_it_waits_is_believed(hint, idle, connections):
    async def script(call):
        await call.answer(fields=[f"Keep-Alive: timeout={hint}, max=100"])

    clock = Clock()
    async with peer(script) as server, client_of(server.url, clock=clock) as client:
        await fetch(client)
        clock.now += idle
        await fetch(client)
    assert server.connections == connections


async def test_idle_connections_are_closed_in_time():
    async with peer(answer_ok) as server, client_of(server.url, keep_alive=0.02) as client:
        await asyncio.gather(*(fetch(client) for _ in range(5)))
        await until(lambda: not server.open)
        assert client.connections == 0


async def test_without_keep_alive_no_connection_is_used_again():
    async with peer(answer_ok) as server, client_of(server.url, keep_alive=0) as client:
        for _ in range(3):
            await fetch(client)
    assert server.connections == 3


class Names:
    """`localhost` under addresses that a test gives it, as a resolver would."""

    def __init__(self, monkeypatch, *addresses):
        self.addresses = addresses
        self.lookups = 0
        self.error = None
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host, port, **_kw):
        if host == "peer.test":
            self.lookups += 1
            if self.error is not None:
                raise self.error
            hosts = self.addresses
        else:
            hosts = [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]


async def test_a_crowd_looks_a_name_up_once(monkeypatch):
    names = Names(monkeypatch, "127.0.0.1")
    async with peer(answer_ok) as server, client_of(f"http://peer.test:{server.port}") as client:
        await asyncio.gather(*(fetch(client) for _ in range(50)))
        assert server.calls[0].headers["host"] == f"peer.test:{server.port}"
    assert names.lookups == 1


async def test_a_moved_peer_is_followed_by_a_pool_that_is_never_idle(monkeypatch):
    async def name(call):
        await call.answer(call._writer.get_extra_info("sockname")[0].encode())

    clock = Clock()
    names = Names(monkeypatch, "127.0.0.1")
    async with (
        peer(name, host="0.0.0.0") as server,  # that is, all of 127/8
        client_of(f"http://peer.test:{server.port}", clock=clock) as client,
    ):
        assert await fetch(client) == (200, b"127.0.0.1")
        names.addresses = ("127.0.0.2",)
        # Never idle: the same connection serves call after call for a minute.
        for _ in range(30):
            clock.now += 1.9
            assert await fetch(client) == (200, b"127.0.0.1")
        clock.now += 3.1
        await fetch(client)
        await until(lambda: names.lookups == 2)
        await asyncio.sleep(0)
        assert await fetch(client) == (200, b"127.0.0.2")
        assert client.connections == 1


async def test_a_call_under_way_to_an_old_address_ends_well(monkeypatch):
    held = Held()
    clock = Clock()
    names = Names(monkeypatch, "127.0.0.1")
    async with peer(held) as server:
        client = HttpClient(parse_base_url(f"http://peer.test:{server.port}"), clock=clock)
        call = asyncio.create_task(fetch(client, "/a", time_limit=500))
        await until(lambda: held.calls)
        clock.now += 61
        names.addresses = ("127.0.0.3",)
        other = asyncio.create_task(fetch(client, "/b", time_limit=0.05))
        await asyncio.wait([other])
        assert isinstance(other.exception(), ConnectFailed | TimedOut)
        held.release(0)
        assert await call == (200, b"/a")
        assert client.connections == 0
        await client.close()


async def test_old_addresses_do_while_a_lookup_fails(monkeypatch):
    clock = Clock()
    names = Names(monkeypatch, "127.0.0.1")
    async with (
        peer(answer_ok) as server,
        client_of(f"http://peer.test:{server.port}", clock=clock) as client,
    ):
        await fetch(client)
        names.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        clock.now += 100
        assert await fetch(client) == (200, b"{}")
        assert names.lookups == 2
        assert server.connections == 2


async def test_a_dead_address_beside_one_that_lives_fails_no_call(monkeypatch):
    Names(monkeypatch, "127.0.0.9", "127.0.0.1")
    async with peer(answer_ok) as server, client_of(f"http://peer.test:{server.port}") as client:
        assert await fetch(client) == (200, b"{}")


async def test_addresses_that_are_none_take_no_lookup():
    addresses = Addresses("::1", 80, clock=Clock())
    [(family, *_, address)] = await addresses.get(patience=1)
    assert (family, address) == (socket.AF_INET6, ("::1", 80))


@pytest.fixture
def no_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take():
        with socket.socket() as next_one:
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one.fileno(), hard))

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_without_descriptors_the_failure_is_ours(no_descriptors, host):
    async with peer(answer_ok) as server, client_of(f"http://{host}:{server.port}") as client:
        no_descriptors()
        with pytest.raises(OutOfResources) as caught:
            await fetch(client)
        assert not isinstance(caught.value, ConnectFailed)
        assert caught.value.progress is Progress.NEVER_SENT
        assert client.connections == 0

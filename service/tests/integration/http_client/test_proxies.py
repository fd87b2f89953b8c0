"""Calls by way of a proxy."""

import asyncio
import base64

import pytest

from event_service.libs.http_client import (
    HttpClient,
    Progress,
    ProxyFailed,
    TimedOut,
    parse_base_url,
    parse_proxy_url,
    tls_context,
)

pytestmark = pytest.mark.anyio

SQUID = """
http_port 127.0.0.1:PORT
pid_filename none
http_access allow all
cache deny all
access_log none
cache_log /dev/null
cache_store_log none
shutdown_lifetime 0 seconds
coredump_dir DIR
"""
HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend tls
    bind 127.0.0.1:PORT ssl crt DIR/server.pem ca-file DIR/ca.pem verify required
    http-request return status 200 content-type text/plain lf-string "%[path] %[ssl_c_s_dn(cn)]"
"""


class Proxy:
    """A proxy of a few lines, which remembers what it was asked."""

    def __init__(self):
        self.heads = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self.hangs = False
        self.open = 0
        self.port = 0

    async def serve(self, reader, writer):
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _serve(self, reader, writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            method, target, _ = head.split(" ", 2)
            if method == "CONNECT":
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if self.hangs:
            await reader.read()
            return
        writer.write(self.answer)
        if b"established" not in self.answer:
            await writer.drain()
            if self.answer:
                await reader.read()
            return
        host, _, port = target.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, back), pump(there, writer))


class Ok(asyncio.Protocol):
    """A server that says the same to each call, and hangs up."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, _data):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        self.transport.close()


async def pump(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.fixture
async def proxy():
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()
    while proxy.open:  # noqa: ASYNC110 - no connection to it is left
        await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def squid(run, needs):
    return run(str(needs("squid")), "-N", "-f", "DIR/conf", files={"conf": SQUID})


@pytest.fixture(scope="module")
def haproxy(run, needs, certificates):
    """The end of TLS in front of a server; it asks clients for a certificate."""
    both = certificates.server.read_text() + certificates.server_key.read_text()
    return run(
        str(needs("haproxy")), "-db", "-f", "DIR/conf",
        files={"conf": HAPROXY, "server.pem": both, "ca.pem": certificates.ca.read_text()},
    )  # fmt: skip


def client_of(url, proxy, **options):
    return HttpClient(parse_base_url(url), proxy=parse_proxy_url(proxy), **options)


async def fetch(client, target="/a?b=c", time_limit=10.0):
    reply = await client.send("GET", target, time_limit=time_limit)
    return reply.status, await reply.read()


def with_certificate(certificates):
    return tls_context(
        ca_file=certificates.ca, cert=certificates.client, key=certificates.client_key
    )


async def test_a_proxy_is_told_the_whole_url_and_the_credentials(proxy):
    client = client_of("http://peer.example:81/base", f"http://ann:p%40ss@127.0.0.1:{proxy.port}")
    assert await fetch(client) == (200, b"ok")
    assert await fetch(client) == (200, b"ok")
    lines = proxy.heads[1].split("\r\n")
    assert lines[0] == "GET http://peer.example:81/base/a?b=c HTTP/1.1"
    assert "host: peer.example:81" in lines
    secret = base64.b64encode(b"ann:p@ss").decode()
    assert f"proxy-authorization: Basic {secret}" in lines
    await client.close()


async def test_a_tunnel_leads_to_a_peer_with_tls(proxy, haproxy, certificates):
    client = client_of(
        f"https://localhost:{haproxy}",
        f"http://ann:p%40ss@127.0.0.1:{proxy.port}",
        tls=with_certificate(certificates),
    )
    for _ in range(3):
        assert await fetch(client) == (200, b"/a client")
    [head] = proxy.heads
    lines = head.split("\r\n")
    assert lines[0] == f"CONNECT localhost:{haproxy} HTTP/1.1"
    assert lines[1] == f"Host: localhost:{haproxy}"
    assert lines[2].startswith("Proxy-Authorization: Basic ")
    await client.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n", "status 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "status 502"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurplus", "more than it was asked"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000, "65536 bytes"),
        (b"", "closed the connection"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_named(proxy, certificates, answer, words):
    proxy.answer = answer
    client = client_of(
        "https://localhost:1",
        f"http://127.0.0.1:{proxy.port}",
        tls=tls_context(ca_file=certificates.ca),
    )
    with pytest.raises(ProxyFailed, match=words) as caught:
        await fetch(client)
    assert caught.value.progress is Progress.NEVER_SENT
    assert client.connections == 0
    await client.close()


async def test_a_silent_proxy_is_not_a_slow_reply(proxy, certificates):
    proxy.hangs = True
    client = client_of(
        "https://localhost:1",
        f"http://127.0.0.1:{proxy.port}",
        tls=tls_context(ca_file=certificates.ca),
    )
    with pytest.raises(TimedOut, match="tunnel through the proxy") as caught:
        await fetch(client, time_limit=0.1)
    assert caught.value.progress is Progress.NEVER_SENT
    await client.close()


async def test_squid_passes_calls_on(squid, haproxy, certificates):
    server = await asyncio.get_running_loop().create_server(Ok, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    by_squid = f"http://127.0.0.1:{squid}"
    plain = client_of(f"http://127.0.0.1:{port}", by_squid)
    found = await asyncio.gather(*(fetch(plain) for _ in range(20)))
    assert found == [(200, b"ok")] * 20
    await plain.close()
    server.close()

    secure = client_of(f"https://localhost:{haproxy}", by_squid, tls=with_certificate(certificates))
    found = await asyncio.gather(*(fetch(secure, f"/{n}") for n in range(20)))
    assert found == [(200, b"/%d client" % n) for n in range(20)]
    await secure.close()

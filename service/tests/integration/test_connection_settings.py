"""The settings of the connection to the upstream, from the service to the wire."""

import ssl

import pytest

from .crowd import status_of
from .observed_service import observed
from .scripted_upstream import by_path, replies, scripted

pytestmark = pytest.mark.anyio

USERS = by_path({"/": replies(b"[]"), "http://": replies(b"[]")})


async def kept_open(connection, call):
    while True:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        await connection.read_call()


@pytest.mark.parametrize(("keep_alive", "connections"), [(4, 1), (0, 3)])
async def test_connections_are_kept_for_as_long_as_upstream_keep_alive_says(
    keep_alive, connections
):
    async with (
        scripted(kept_open) as upstream,
        observed(upstream_url=upstream.url, upstream_keep_alive=keep_alive) as service,
    ):
        for _ in range(3):
            assert await status_of(service.client, "/api/getUsers") == 200
        assert upstream.connections == connections


async def test_an_upstream_that_requires_a_client_certificate_gets_it(certificates):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates.server, certificates.server_key)
    tls.load_verify_locations(certificates.ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    known = {"upstream_ca_file": certificates.ca}
    ours = {
        "upstream_client_cert": certificates.client,
        "upstream_client_key": certificates.client_key,
    }
    async with scripted(USERS, tls=tls) as upstream:
        for settings, status in ((known | ours, 200), (known, 502), ({}, 502)):
            async with observed(upstream_url=upstream.url, retry_attempts=1, **settings) as service:
                assert await status_of(service.client, "/api/getUsers") == status


async def test_calls_go_by_way_of_the_proxy():
    async with (
        scripted(USERS) as proxy,
        observed(
            upstream_url="http://events.example/base",
            upstream_proxy=proxy.url.replace("//", "//ann:secret@"),
        ) as service,
    ):
        assert await status_of(service.client, "/api/getUsers") == 200
        (call,) = proxy.calls
        assert call.line == "GET http://events.example/base/getUsers HTTP/1.1"
        assert call.headers["host"] == "events.example"
        assert call.headers["proxy-authorization"] == "Basic YW5uOnNlY3JldA=="
        assert "secret" not in str(service.lines)

from ipaddress import ip_network

import pytest
from starlette.types import Message, Receive, Scope, Send

from event_service.middleware.forwarded import TrustedProxies

pytestmark = pytest.mark.anyio

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


async def client_of(peer: str | None, *headers: tuple[str, str]) -> str | None:
    """The address that the layers within see for a request from `peer`."""
    seen: list[str | None] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["client"][0] if scope["client"] else None)

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "headers": raw, "client": (peer, 1234) if peer else None}
    await TrustedProxies(app, TRUSTED)(scope, receive, send)
    return seen[0]


def x(value: str) -> tuple[str, str]:
    return ("x-forwarded-for", value)


def forwarded(value: str) -> tuple[str, str]:
    return ("forwarded", value)


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        # nobody is believed who is not trusted
        ("203.0.113.7", [x("198.51.100.1")], "203.0.113.7"),
        ("203.0.113.7", [forwarded("for=198.51.100.1")], "203.0.113.7"),
        # a trusted proxy is, for the hop before it
        ("10.0.0.1", [x("198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [forwarded("for=198.51.100.1;proto=https")], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # what the client itself wrote stands further left
        ("10.0.0.1", [x("1.1.1.1, 198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [x("10.0.0.9, 198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [x("1.1.1.1"), x("198.51.100.1")], "198.51.100.1"),
        # a chain of trusted proxies is followed to its beginning
        ("10.0.0.1", [x("198.51.100.1, 10.0.0.3, 10.0.0.2")], "198.51.100.1"),
        ("10.0.0.1", [x("10.0.0.3, 10.0.0.2")], "10.0.0.3"),
        ("10.0.0.1", [forwarded("for=198.51.100.1, for=10.0.0.2;by=10.0.0.1")], "198.51.100.1"),
        # the ways to write an address
        ("fd00::1", [x("2001:db8::7")], "2001:db8::7"),
        ("10.0.0.1", [x("[2001:db8::7]:443")], "2001:db8::7"),
        ("10.0.0.1", [x("198.51.100.1:55555")], "198.51.100.1"),
        ("10.0.0.1", [forwarded('For="[2001:db8::7]:4711"')], "2001:db8::7"),
        ("::ffff:10.0.0.1", [x("::ffff:198.51.100.1")], "198.51.100.1"),
        # whatever is no address ends the chain
        ("10.0.0.1", [x("198.51.100.1, unknown")], "10.0.0.1"),
        ("10.0.0.1", [x("198.51.100.1, garbage, 10.0.0.2")], "10.0.0.2"),
        ("10.0.0.1", [forwarded("for=_hidden")], "10.0.0.1"),
        ("10.0.0.1", [x("")], "10.0.0.1"),
        ("10.0.0.1", [x("\xff\xfe")], "10.0.0.1"),
        # of two headers one may be the client's own
        ("10.0.0.1", [x("198.51.100.1"), forwarded("for=1.1.1.1")], "10.0.0.1"),
    ],
)
async def test_the_client_is_the_first_address_that_no_trusted_proxy_vouches_for(
    peer: str, headers: list[tuple[str, str]], client: str
):
    assert await client_of(peer, *headers) == client


async def test_a_request_without_an_address_stays_without_one():
    assert await client_of(None, x("198.51.100.1")) is None

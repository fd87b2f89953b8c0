from ipaddress import ip_network

import pytest
from starlette.types import Message, Receive, Scope, Send

from event_service.middleware.forwarded import TrustedProxies

pytestmark = pytest.mark.anyio

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


async def seen_of(peer: str | None, *headers: tuple[str, str], header: str) -> Scope:
    """The scope that the layers within get for a request from `peer`."""
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    client = (peer, 1234) if peer else None
    scope = {"type": "http", "scheme": "http", "headers": raw, "client": client}
    await TrustedProxies(app, TRUSTED, header=header)(scope, receive, send)
    return seen[0]


async def client_of(peer: str | None, *headers: tuple[str, str]) -> str | None:
    """The client by the header that the test sends, which is the one that proxies write."""
    forwarded = any(name == "forwarded" for name, _ in headers)
    scope = await seen_of(peer, *headers, header="forwarded" if forwarded else "x-forwarded-for")
    return scope["client"][0] if scope["client"] else None


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
        # what looks like a hop inside a quoted string is none
        ("10.0.0.1", [forwarded('for=203.0.113.9;host="for=6.6.6.6"')], "203.0.113.9"),
        ("10.0.0.1", [forwarded('for=203.0.113.9;host="a, for=6.6.6.6"')], "203.0.113.9"),
        ("10.0.0.1", [forwarded(r'for=203.0.113.9;host="\", for=6.6.6.6"')], "203.0.113.9"),
        # no quote of the client's swallows what the proxy wrote behind it
        ("10.0.0.1", [forwarded('for=", for="[2001:db8::7]"')], "2001:db8::7"),
        ("10.0.0.1", [forwarded('for="'), forwarded('for="[2001:db8::7]"')], "2001:db8::7"),
        ("10.0.0.1", [forwarded('for=6.6.6.6;x=", for="[2001:db8::7]";by=_p')], "2001:db8::7"),
        # elements are read as RFC 7239 writes them
        ("10.0.0.1", [forwarded("for=198.51.100.1 ; proto=https")], "198.51.100.1"),
        ("10.0.0.1", [forwarded("proto=https;FOR=198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [forwarded("for=198.51.100.1,, ")], "198.51.100.1"),
        ("10.0.0.1", [forwarded("proto=https")], "10.0.0.1"),
        ("10.0.0.1", [forwarded("for")], "10.0.0.1"),
    ],
)
async def test_the_client_is_the_first_address_that_no_trusted_proxy_vouches_for(
    peer: str, headers: list[tuple[str, str]], client: str
):
    assert await client_of(peer, *headers) == client


async def test_a_request_without_an_address_stays_without_one():
    assert await client_of(None, x("198.51.100.1")) is None


@pytest.mark.parametrize(
    ("header", "client"), [("x-forwarded-for", "198.51.100.1"), ("forwarded", "198.51.100.2")]
)
async def test_only_the_header_counts_that_the_proxies_write(header: str, client: str):
    both = x("198.51.100.1"), forwarded("for=198.51.100.2;proto=https")

    assert (await seen_of("10.0.0.1", *both, header=header))["client"][0] == client


@pytest.mark.parametrize(
    ("peer", "header", "headers", "scheme"),
    [
        ("10.0.0.1", "x-forwarded-for", [("x-forwarded-proto", "https")], "https"),
        ("10.0.0.1", "x-forwarded-for", [("x-forwarded-proto", "http, HTTPS")], "https"),
        ("10.0.0.1", "x-forwarded-for", [("x-forwarded-proto", "gopher")], "http"),
        ("10.0.0.1", "x-forwarded-for", [forwarded("for=198.51.100.1;proto=https")], "http"),
        ("203.0.113.7", "x-forwarded-for", [("x-forwarded-proto", "https")], "http"),
        ("10.0.0.1", "forwarded", [forwarded("for=198.51.100.1;proto=https")], "https"),
        ("10.0.0.1", "forwarded", [("x-forwarded-proto", "https")], "http"),
    ],
)
async def test_trusted_proxies_alone_say_that_the_client_speaks_https(
    peer: str, header: str, headers: list[tuple[str, str]], scheme: str
):
    assert (await seen_of(peer, *headers, header=header))["scheme"] == scheme


async def test_a_chain_without_end_is_not_followed_for_ever():
    endless = ", ".join(["for=10.0.0.2"] * 4_000)

    assert await client_of("10.0.0.1", forwarded(endless)) == "10.0.0.2"

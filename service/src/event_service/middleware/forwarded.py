"""Which client a request came from, and how, where proxies stand in between."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]

# Longer chains of proxies are not followed: each hop costs a search through the header.
MOST_HOPS = 32
_with_port = re.compile(r"\[(.+)\](?::\d+)?\Z|(\d+\.\d+\.\d+\.\d+):\d+\Z")

# RFC 7239, section 4: elements between commas, parameters between semicolons, values that are
# tokens or quoted strings. Addresses with colons must be quoted, but not everybody does.
_VALUE = r'"(?:[^"\\]|\\.)*"|[^\s",;=\\]*'
_PARAMETER = rf"[!#$%&'*+.^_`|~0-9A-Za-z-]+=(?:{_VALUE})"
_ELEMENT = rf"{_PARAMETER}(?:\s*;\s*{_PARAMETER})*"
_last_element = re.compile(rf"(?:^|,)[ \t]*({_ELEMENT})[ \t]*\Z")
_parameter = re.compile(rf"([^\s;=]+)=({_VALUE})")


class TrustedProxies:
    """Puts the client that trusted proxies speak for into the scope, in place of the proxy, and
    the scheme that it used.

    Anyone can send these headers. So the chain is followed from its end, our peer, for as long as
    it leads through the networks that are trusted: the first address outside of them is the
    client. What stands before it, the client itself may have written. Of the two headers only the
    one is read that the proxies write; the other is the client's.
    """

    def __init__(
        self,
        app: ASGIApp,
        networks: Sequence[Network],
        *,
        header: ForwardedHeader = "x-forwarded-for",
    ) -> None:
        self._app = app
        self._networks = tuple(networks)
        self._header = header.encode()
        self._hops = _forwarded_hops if header == "forwarded" else _x_forwarded_hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            peer = _address(scope["client"][0])
            if peer is not None and self._trusts(peer):
                self._read(scope, peer)
        await self._app(scope, receive, send)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _read(self, scope: Scope, peer: Address) -> None:
        lines = [v.decode("latin-1") for name, v in scope["headers"] if name == self._header]
        origin, scheme = peer, ""
        for count, (name, proto) in enumerate(self._hops(lines)):
            # How our own peer was called, the nearest hop says.
            scheme = scheme or proto
            before = _address(name)
            if before is None or count == MOST_HOPS:
                break
            origin = before
            if not self._trusts(origin):
                break
        scope["client"] = (str(origin), 0)
        if self._header == b"x-forwarded-for":
            scheme = _x_forwarded_proto(scope["headers"])
        if scheme.lower() in {"http", "https"}:
            scope["scheme"] = scheme.lower()


def _x_forwarded_hops(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The addresses that a request passed through, the nearest first."""
    for line in reversed(lines):
        for name in reversed(line.split(",")):
            yield name.strip(), ""


def _x_forwarded_proto(headers: list[tuple[bytes, bytes]]) -> str:
    values = [value for name, value in headers if name == b"x-forwarded-proto"]
    return values[-1].decode("latin-1").rpartition(",")[2].strip() if values else ""


def _forwarded_hops(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The addresses that a request passed through and the schemes it used, the nearest first.

    Elements are taken off the end one by one, so that what a client wrote before them, a quote
    that never ends for example, cannot swallow them.
    """
    for line in reversed(lines):
        rest = line.rstrip(" \t,")
        while rest:
            element = _last_element.search(rest)
            if element is None:
                yield "", ""  # nobody knows who wrote this
                return
            found = {k.lower(): _unquoted(v) for k, v in _parameter.findall(element[1])}
            yield found.get("for", ""), found.get("proto", "")
            rest = rest[: element.start()].rstrip(" \t,")


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _address(text: str) -> Address | None:
    """The IP address in a hop's name, None for `unknown` and whatever else is none."""
    port = _with_port.match(text)
    try:
        address = ip_address((port[1] or port[2]) if port else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

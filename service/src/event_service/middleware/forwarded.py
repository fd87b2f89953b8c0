"""The address and scheme of a client behind trusted proxies."""

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
# tokens or quoted strings. Addresses with colons must be quoted, but some proxies do not.
_VALUE = r'"(?:[^"\\]|\\.)*"|[^\s",;=\\]*'
_PARAMETER = rf"[!#$%&'*+.^_`|~0-9A-Za-z-]+=(?:{_VALUE})"
_ELEMENT = rf"{_PARAMETER}(?:\s*;\s*{_PARAMETER})*"
_last_element = re.compile(rf"(?:^|,)[ \t]*({_ELEMENT})[ \t]*\Z")
_parameter = re.compile(rf"([^\s;=]+)=({_VALUE})")


class TrustedProxies:
    """Replaces the proxy's address and scheme in the scope with the client's.

    Anyone can send these headers. So the chain is read backwards from our peer, through trusted
    networks only: the first address outside them is the client. Everything before that address may
    be forged by the client. Only the configured header is read, because proxies do not remove the
    other one.
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
            # The nearest hop that states a scheme tells how our own proxy was called.
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

    Elements are taken off the end one by one, so that text from the client before them, such as an
    unclosed quote, cannot hide them.
    """
    for line in reversed(lines):
        rest = line.rstrip(" \t,")
        while rest:
            element = _last_element.search(rest)
            if element is None:
                yield "", ""  # malformed: its author is unknown
                return
            found = {k.lower(): _unquoted(v) for k, v in _parameter.findall(element[1])}
            yield found.get("for", ""), found.get("proto", "")
            rest = rest[: element.start()].rstrip(" \t,")


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _address(text: str) -> Address | None:
    """The IP address in a hop's name; None if it is not an address, such as `unknown`."""
    port = _with_port.match(text)
    try:
        address = ip_address((port[1] or port[2]) if port else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

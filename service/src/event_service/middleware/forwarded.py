"""Which client a request came from, where proxies stand in between."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_forwarded_for = re.compile(r'\bfor\s*=\s*("[^"]*"|[^;,\s]*)', re.IGNORECASE)
_with_port = re.compile(r"\[(.+)\](?::\d+)?\Z|(\d+\.\d+\.\d+\.\d+):\d+\Z")


class TrustedProxies:
    """Puts the client that trusted proxies speak for into the scope, in place of the proxy.

    Anyone can send `X-Forwarded-For` or `Forwarded`. So the chain is followed from its end, our
    peer, for as long as it leads through the networks that are trusted: the first address
    outside of them is the client. What stands before it, the client itself may have written.
    """

    def __init__(self, app: ASGIApp, networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = tuple(networks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            peer = _address(scope["client"][0])
            if peer is not None and self._trusts(peer):
                scope["client"] = (str(self._origin(peer, scope)), 0)
        await self._app(scope, receive, send)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _origin(self, peer: Address, scope: Scope) -> Address:
        chain = _chain(scope["headers"])
        address = peer
        while chain and self._trusts(address):
            before = _address(chain.pop())
            if before is None:
                break
            address = before
        return address


def _chain(headers: list[tuple[bytes, bytes]]) -> list[str]:
    """The addresses that a request passed through, the nearest last."""
    x_forwarded = ",".join(v.decode("latin-1") for n, v in headers if n == b"x-forwarded-for")
    forwarded = ",".join(v.decode("latin-1") for n, v in headers if n == b"forwarded")
    if x_forwarded and forwarded:
        # A proxy writes one of them; the other may be the client's. Which is which, nobody says.
        return []
    if forwarded:
        return [match.strip('"') for match in _forwarded_for.findall(forwarded)]
    return [hop.strip() for hop in x_forwarded.split(",")] if x_forwarded else []


def _address(text: str) -> Address | None:
    """The IP address in a hop's name, None for `unknown` and whatever else is none."""
    port = _with_port.match(text)
    try:
        address = ip_address((port[1] or port[2]) if port else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

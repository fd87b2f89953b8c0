"""Limits how often a client calls the API: fixed windows that start with its first request."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from math import ceil
from typing import Protocol

from limits import RateLimitItem
from starlette.types import ASGIApp, Receive, Scope, Send

from event_service import context
from event_service.errors import RateLimited
from event_service.libs.rate_counts import Standing
from event_service.signals import Emit, RateExceeded

LIMITED = "/api/"
# Providers assign /64 networks: one client has all addresses of one.
IPV6_NETWORK_BITS = 64


class Counts(Protocol):
    """Counts the requests of each client, in this process or across several."""

    async def take(self, client: str, *, address: str | None = None) -> Standing: ...


class RateLimit:
    """Refuses requests of a client above its rate, and tells every client what it has left
    (draft-ietf-httpapi-ratelimit-headers-10).

    A client is identified by its API key if that header is configured and sent, else its address.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        rates: Sequence[RateLimitItem],
        counts: Counts,
        api_key_header: str | None,
        emit: Emit,
    ) -> None:
        self._app = app
        self._counts = counts
        self._names = ["default", *(f"default-{number}" for number in range(2, len(rates) + 1))]
        self._policy = ", ".join(
            f'"{name}";q={rate.amount};w={rate.get_expiry()}'
            for name, rate in zip(self._names, rates, strict=True)
        ).encode()
        self._key = api_key(api_key_header)
        self._emit = emit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RateLimited for a client above its rate; the reply's headers tell the rate."""
        if scope["type"] == "http" and scope["path"].startswith(LIMITED):
            await self._count(scope)
        await self._app(scope, receive, send)

    async def _count(self, scope: Scope) -> None:
        address, key = client_address(scope), self._key(scope)
        if key is None:
            standing = await self._counts.take(address)
        else:
            standing = await self._counts.take(key, address=address)
        rates = ", ".join(
            f'"{name}";r={left};t={ceil(seconds)}'
            for name, (left, seconds) in zip(self._names, standing.rates, strict=True)
        )
        context.require().reply_headers += (
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", rates.encode()),
        )
        if standing.wait:
            self._emit(RateExceeded())
            raise RateLimited(
                "This client is over its rate of requests.", retry_after=standing.wait
            )


def client_address(scope: Scope) -> str:
    address: str = scope["client"][0] if scope.get("client") else ""
    return network(address) if ":" in address else address


def api_key(header: str | None) -> Callable[[Scope], str | None]:
    """A function from a request to a hash that identifies its API key, or None without one."""
    # Keys are secrets: counters hold salted hashes instead of keys.
    salt = secrets.token_bytes(16)
    wanted = (header or "").lower().encode()

    def key(scope: Scope) -> str | None:
        if wanted:
            for name, value in scope["headers"]:
                if name == wanted:
                    return hashlib.blake2b(value, digest_size=16, key=salt).hexdigest()
        return None

    return key


def network(address: str) -> str:
    """The /64 network of an IPv6 address, or an IPv4 address (also one mapped into IPv6)."""
    ip = IPv6Address(address.partition("%")[0])
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{int(ip) >> (128 - IPV6_NETWORK_BITS):x}"

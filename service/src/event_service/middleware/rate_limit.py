"""How often a client may call the API: fixed windows that begin with a client's first request."""

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
# A network operator hands out 64-bit networks: one client has all addresses of one.
IPV6_NETWORK_BITS = 64


class Counts(Protocol):
    """Counts the requests of clients, in this process or over several."""

    async def take(self, client: str, *, address: str | None = None) -> Standing: ...


class RateLimit:
    """Refuses the requests of a client that is over one of its rates, and tells every client
    where it stands (draft-ietf-httpapi-ratelimit-headers-10).

    A client is its API key where such a header is configured and sent, else its address.
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
        """Raises RateLimited, with the headers that say so, for a client over its rate."""
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
    """What tells an API key from others, as a function of the requests that carry it."""
    # Keys are secrets: without this process's salt a copy of its memory does not tell them.
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
    """The network of an IPv6 address, or the IPv4 address that it stands for."""
    ip = IPv6Address(address.partition("%")[0])
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{int(ip) >> (128 - IPV6_NETWORK_BITS):x}"

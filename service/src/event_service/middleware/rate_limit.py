"""How often a client may call the API: fixed windows that begin with a client's first request."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from math import ceil
from typing import Protocol

from limits import RateLimitItem
from limits.storage import Storage
from starlette.types import ASGIApp, Receive, Scope, Send

from event_service import context
from event_service.errors import RateLimited
from event_service.libs.window_counts import WindowCounts

LIMITED = "/api/"
# A network operator hands out 64-bit networks: one client has all addresses of one.
IPV6_NETWORK_BITS = 64
# About 20 MB. Beyond so many clients at once the oldest windows are forgotten, in their favour.
MAX_WINDOWS = 100_000


class LimitObserver(Protocol):
    """Told of each request that is refused."""

    def rate_limited(self) -> None: ...


class RateLimit:
    """Refuses the requests of a client that is over one of its rates, and tells every client
    where it stands (draft-ietf-httpapi-ratelimit-headers-10).

    A client is its API key where such a header is configured and sent, else its address. Each
    process counts for itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        rates: Sequence[RateLimitItem],
        api_key_header: str | None,
        observer: LimitObserver,
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._counts: Storage = WindowCounts(MAX_WINDOWS, clock=clock)
        names = ["default", *(f"default-{number}" for number in range(2, len(rates) + 1))]
        self._rates = list(zip(names, rates, strict=True))
        self._policy = ", ".join(
            f'"{name}";q={rate.amount};w={rate.get_expiry()}' for name, rate in self._rates
        )
        self._client = client_key(api_key_header)
        self._observer = observer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RateLimited, with the headers that say so, for a client over its rate."""
        if scope["type"] == "http" and scope["path"].startswith(LIMITED):
            self._count(self._client(scope))
        await self._app(scope, receive, send)

    def _count(self, client: str) -> None:
        standing = []
        wait = 0.0
        for name, rate in self._rates:
            # What the library's fixed-window strategy does, with the key built once.
            key = rate.key_for(client)
            count = self._counts.incr(key, rate.get_expiry())
            left = max(0.0, self._counts.get_expiry(key) - self._clock())
            standing.append(f'"{name}";r={max(0, rate.amount - count)};t={ceil(left)}')
            if count > rate.amount:
                wait = max(wait, left)
        context.require().reply_headers += (
            (b"ratelimit-policy", self._policy.encode()),
            (b"ratelimit", ", ".join(standing).encode()),
        )
        if wait:
            self._observer.rate_limited()
            raise RateLimited("This client is over its rate of requests.", retry_after=wait)


def client_key(api_key_header: str | None) -> Callable[[Scope], str]:
    """What tells clients apart, as a function of their requests."""
    # Keys are secrets: without this process's salt a copy of its memory does not tell them.
    salt = secrets.token_bytes(16)
    header = (api_key_header or "").lower().encode()

    def key(scope: Scope) -> str:
        if header:
            for name, value in scope["headers"]:
                if name == header:
                    return hashlib.blake2b(value, digest_size=16, key=salt).hexdigest()
        address: str = scope["client"][0] if scope.get("client") else ""
        return network(address) if ":" in address else address

    return key


def network(address: str) -> str:
    """The network of an IPv6 address, or the IPv4 address that it stands for."""
    ip = IPv6Address(address.partition("%")[0])
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{int(ip) >> (128 - IPV6_NETWORK_BITS):x}"

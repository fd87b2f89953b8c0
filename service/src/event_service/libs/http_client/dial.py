import asyncio
import errno
import os
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar, cast

import aiohappyeyeballs
import httptools

from event_service.libs.http_client.addresses import Addresses, AddrInfo
from event_service.libs.http_client.connection import MAX_HEAD, Connection
from event_service.libs.http_client.errors import (
    ConnectFailed,
    HttpClientError,
    OutOfResources,
    ProxyFailed,
    TimedOut,
    Timings,
    TlsFailed,
)
from event_service.libs.http_client.urls import BaseUrl, Proxy

P = TypeVar("P", bound=asyncio.Protocol)

# RFC 8305, 5: seconds before the next address is tried in parallel.
HEAD_START = 0.25
# Errors that mean a lack of local resources; the peer is not at fault.
_OURS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN}
)


class Dial:
    """Opens connections to one base URL: name lookup, addresses, proxy tunnel, TLS."""

    def __init__(
        self,
        url: BaseUrl,
        addresses: Addresses,
        *,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None,
        clock: Callable[[], float],
    ) -> None:
        self._addresses = addresses
        self._tls = tls
        self._server_name = url.host.removesuffix(".")
        self._tunnel = _connect_request(url, proxy) if tls is not None and proxy else None
        self._clock = clock

    async def connect(self, build: Callable[[], Connection], within: float) -> Connection:
        """A new connection that has sent nothing yet. `within`: seconds for all steps together.

        Raises OutOfResources, ConnectFailed or TimedOut. No socket is left open after an error.
        """
        attempt = _Attempt(self._clock())
        try:
            async with asyncio.timeout(within):
                return await self._connect(build, within, attempt)
        except BaseException as exc:
            if attempt.transport is not None:
                attempt.transport.abort()
            if (error := attempt.error(exc)) is None:
                raise
            error.timings = Timings(attempt.connected, None, None, None)
            raise error from exc

    async def _connect(
        self, build: Callable[[], Connection], within: float, attempt: "_Attempt"
    ) -> Connection:
        addresses = await self._addresses.get(patience=within / 2)
        attempt.step = "connection"
        if self._tunnel is None:
            attempt.transport, connection = await _open(addresses, build)
        else:
            request = self._tunnel
            attempt.transport, tunnel = await _open(addresses, lambda: _Tunnel(request))
            attempt.step = "tunnel through the proxy"
            await tunnel.open
            connection = build()
        began_tls = self._clock()
        connection.connect_time = attempt.connected = began_tls - attempt.began
        if self._tls is not None:
            attempt.step = "TLS handshake"
            secured = await asyncio.get_running_loop().start_tls(
                attempt.transport, connection, self._tls, server_hostname=self._server_name
            )
            connection.connection_made(cast("asyncio.Transport", secured))
            connection.tls_time = self._clock() - began_tls
        return connection


class _Attempt:
    """The progress of a new connection."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.step = "address"
        self.transport: asyncio.Transport | None = None
        self.connected: float | None = None

    def error(self, exc: BaseException) -> HttpClientError | None:
        """The client's error for `exc`; None if `exc` should be raised itself."""
        if not isinstance(exc, OSError):
            return None
        if isinstance(exc, TimeoutError) and exc.errno is None:
            return TimedOut(f"no {self.step} in time")
        reason = _reason(exc)
        if exc.errno in _OURS and not isinstance(exc, ssl.SSLError):
            return OutOfResources(f"no connection can be made: {reason}")
        if self.step == "TLS handshake":
            return TlsFailed(f"no {self.step}: {reason}")
        if self.step == "tunnel through the proxy":
            return ProxyFailed(f"no {self.step}: {reason}")
        return ConnectFailed(f"no {self.step}: {reason}")


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return getattr(exc, "verify_message", None) or exc.reason or "TLS failed"
    # Not the error's own text, because it contains addresses.
    return os.strerror(exc.errno) if exc.errno else "closed by the peer"


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel; `open` is done when the tunnel exists."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._reply = b""
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if self.open.done():
            return
        head, end, rest = self._reply.partition(b"\r\n\r\n")
        if end:
            self._settle(_tunnel_refusal(head + end, rest))
        elif len(self._reply) > MAX_HEAD:
            self._settle(f"a head of more than {MAX_HEAD} bytes")

    def connection_lost(self, _exc: Exception | None) -> None:
        self._settle("the proxy closed the connection")

    def _settle(self, refusal: str | None) -> None:
        if self.open.done():
            return
        if refusal is None:
            self.open.set_result(None)
        else:
            self.open.set_exception(ProxyFailed(f"no tunnel through the proxy: {refusal}"))


def _tunnel_refusal(head: bytes, rest: bytes) -> str | None:
    parser = httptools.HttpResponseParser(object())
    try:
        parser.feed_data(head)
    except httptools.HttpParserError as exc:
        return f"not HTTP/1.1: {exc}"
    status = parser.get_status_code()
    if not 200 <= status < 300:  # noqa: PLR2004
        return f"status {status}"
    # Further bytes from the proxy would be mistaken for the peer's.
    return "it said more than it was asked for" if rest else None


def _connect_request(url: BaseUrl, proxy: Proxy) -> bytes:
    lines = [f"CONNECT {url.netloc} HTTP/1.1", f"Host: {url.netloc}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy_authorization(proxy.credentials)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def proxy_authorization(credentials: tuple[str, str]) -> str:
    return f"Basic {b64encode(':'.join(credentials).encode()).decode()}"


async def _open(addresses: list[AddrInfo], build: Callable[[], P]) -> tuple[asyncio.Transport, P]:
    loop = asyncio.get_running_loop()
    if len(addresses) == 1:
        host, port = addresses[0][4][:2]
        return await loop.create_connection(build, host, port)
    sock = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=HEAD_START, loop=loop
    )
    try:
        return await loop.create_connection(build, sock=sock)
    except BaseException:
        sock.close()
        raise

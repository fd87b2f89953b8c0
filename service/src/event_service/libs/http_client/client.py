import ssl
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from event_service.libs.http_client.addresses import Addresses
from event_service.libs.http_client.dial import Dial, proxy_authorization
from event_service.libs.http_client.errors import Broken, InvalidRequest
from event_service.libs.http_client.pool import Pool
from event_service.libs.http_client.reply import Reply, Watch
from event_service.libs.http_client.urls import (
    OWN_HEADERS,
    BaseUrl,
    Proxy,
    check_headers,
    is_field,
)

# Without HEAD and CONNECT: their replies do not end where their headers say.
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# As Go's net/http does (transport.go, `isReplayable`), a request on a connection that was closed
# before the first byte of a reply is sent once more if it is safe or has an idempotency key.
_REPEATABLE = frozenset({"GET", "OPTIONS"})
_KEY = "idempotency-key"
_REQUEST_TIMEOUT = 408


class HttpClient:
    """HTTP/1.1 calls to one peer over pooled connections.

    It follows no redirects, keeps no cookies, reads no environment variables, and asks for no
    compression. Use from one event loop only, with any number of tasks.
    """

    def __init__(
        self,
        url: BaseUrl,
        *,
        headers: Mapping[str, str] | None = None,
        connections: int = 100,
        keep_alive: float = 4.0,
        connect_timeout: float = 10.0,
        max_body: int = 8 * 1024 * 1024,
        tls: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`headers` are sent with every call. `connections`: limit for open connections.
        `keep_alive` and `connect_timeout` are in seconds; `max_body` is in bytes, for the encoded
        and for the decoded body. `tls` is required for https and not allowed otherwise. Raises
        ValueError for headers that cannot be sent.
        """
        check_headers(headers or {})
        if (url.scheme == "https") is not (tls is not None):
            raise ValueError("https needs a TLS context, and http has no use for one.")
        self._max_body = max_body
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._origin = url.path
        fields = {"host": url.authority, "accept-encoding": "identity", **(headers or {})}
        if proxy is not None and tls is None:
            # RFC 9112, 3.2.2: a proxy gets the whole URL.
            self._origin = f"http://{url.authority}{url.path}"
            if proxy.credentials is not None:
                fields["proxy-authorization"] = proxy_authorization(proxy.credentials)
        lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
        self._fixed = "".join([" HTTP/1.1\r\n", *lines])
        peer = url if proxy is None else proxy
        addresses = Addresses(peer.host, peer.port, clock=clock)
        self._pool = Pool(
            Dial(url, addresses, tls=tls, proxy=proxy, clock=clock),
            addresses,
            limit=connections,
            keep_alive=keep_alive,
            clock=clock,
        )

    @property
    def connections(self) -> int:
        """Number of connections that are open or being opened."""
        return self._pool.open

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a connection because the limit is reached."""
        return self._pool.waiting

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        time_limit: float,
        watch: Watch | None = None,
    ) -> Reply:
        """Send a request; returns its reply once the head has arrived. `target`: a path, with or
        without a query, below the URL.

        `time_limit`, in seconds, covers everything from opening a connection, if necessary, to the
        last byte of the reply. Waiting for a free connection does not count.

        If a reused connection ends before the first byte of a reply, or with a 408 that closes it,
        the request is sent once more on a new connection if it is a GET or has an Idempotency-Key.

        Raises only the errors of this package; their `progress` says whether the request was sent.
        Cancelling ends the call at the peer at once.
        """
        request = self._encode(method, target, headers, body)
        pool = self._pool
        left = time_limit
        fresh = False
        while True:
            connection = None if fresh else pool.take()
            if connection is None:
                connection = await pool.wait(fresh=fresh, watch=watch)
            if connection is None:
                began = self._clock()
                connection = await pool.make(min(left, self._connect_timeout))
                left -= self._clock() - began
                if watch is not None:
                    watch.heard()
            reply = connection.exchange(request, time_limit=left, max_body=self._max_body)
            reply.watch = watch
            try:
                await reply.head()
            except Broken:
                if reply.first_byte_at is not None or not _is_repeatable(reply, method, headers):
                    raise
            else:
                if not _is_for_idling(reply) or not _is_repeatable(reply, method, headers):
                    return reply
                reply.abandon()
            left -= self._clock() - reply.sent_at
            fresh = True

    async def close(self) -> None:
        """Close all connections. Current calls fail; later ones raise ClientClosed."""
        await self._pool.close()

    def _encode(
        self, method: str, target: str, headers: Mapping[str, str] | None, body: bytes
    ) -> bytes:
        if method not in _METHODS:
            raise InvalidRequest(f"the method {method!r} is not one that this client sends")
        if not (
            target.startswith("/")
            and target.isascii()
            and target.isprintable()
            and " " not in target
            and "#" not in target
        ):
            raise InvalidRequest("the path has a character that it may not hold")
        parts = [method, " ", self._origin, target, self._fixed]
        if headers:
            for name, value in headers.items():
                # Nearly all values are printable; check the others in detail.
                if not _is_name(name) or not (value.isprintable() or is_field(name, value)):
                    raise InvalidRequest(f"the header {name!r} cannot be sent")
                parts += (name, ": ", value, "\r\n")
        if body or method in _WITH_BODY:
            parts += ("content-length: ", str(len(body)), "\r\n")
        parts.append("\r\n")
        try:
            return "".join(parts).encode("latin-1") + body
        except UnicodeEncodeError:
            raise InvalidRequest("a header has a character that cannot be sent") from None


def _is_for_idling(reply: Reply) -> bool:
    """RFC 9110, 15.5.9: with a 408 a server closes a connection on which it waited too long for a
    request. With a 408 that keeps the connection open it answers this one.
    """
    return (
        reply.status == _REQUEST_TIMEOUT and reply.header(b"connection").strip().lower() == "close"
    )


def _is_repeatable(reply: Reply, method: str, headers: Mapping[str, str] | None) -> bool:
    if not reply.reused:
        return False
    return method in _REPEATABLE or any(name.lower() == _KEY for name in headers or ())


@lru_cache(maxsize=64)
def _is_name(name: str) -> bool:
    """Whether callers may set this header; some are set by the client itself."""
    return name.lower() not in OWN_HEADERS and is_field(name, "")

"""The events API over HTTP: the one seam that knows the client library."""

import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BodyDecodeError,
    DecodeError,
    PyreqwestError,
    ReadTimeoutError,
    RequestTimeoutError,
)
from pyreqwest.http import Url
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response

from event_service import context
from event_service.context import Attempt
from event_service.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamNonsense,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
    UserNotFound,
)
from event_service.models import Event, NewEvent, User, is_id

T = TypeVar("T")

# An upstream that asks for longer than a day is not to be taken at its word.
LONGEST_RETRY_AFTER = 86_400.0
# Seconds. Common servers hang up after 5 s; a write that meets them doing so may not be repeated.
IDLE_CONNECTION = 4.0
NONSENSE = "The upstream sent a reply that makes no sense."


class _Added(msgspec.Struct):
    success: bool
    id: str | None = None


_users = msgspec.json.Decoder(list[User])
_user: msgspec.json.Decoder[User | None] = msgspec.json.Decoder(User | None)
_events = msgspec.json.Decoder(list[Event])
_event = msgspec.json.Decoder(Event)
_added = msgspec.json.Decoder(_Added)


def build_client(
    *, headers: Mapping[str, str], timeout: float, concurrency: int | None = None
) -> Client:
    """A client that follows no redirect, heeds no proxy variable and decompresses nothing.

    `timeout` bounds each attempt from connecting to the last byte, in seconds. Connecting may
    take half of it: an address that swallows packets is told from a slow reply by the log.
    `concurrency` bounds the calls under way, also those whose caller was cancelled: this client
    does not break off a call before it has the head of the reply.
    """
    return (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(enable=False)
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .referer(enable=False)
        .user_agent("event-service")
        .default_headers({"accept": "application/json", **headers})
        .timeout(timedelta(seconds=timeout))
        .connect_timeout(timedelta(seconds=timeout / 2))
        .pool_idle_timeout(timedelta(seconds=IDLE_CONNECTION))
        .max_connections(concurrency)
        .build()
    )


class Exchange(Protocol):
    """One HTTP exchange that is traced: what it sends along, and what it is told."""

    headers: dict[str, str]

    def answered(self, status: int) -> None: ...


class Trace(Protocol):
    def __call__(
        self, operation: str, method: str, url: str
    ) -> AbstractContextManager[Exchange]: ...


class HttpEvents:
    """The events API over HTTP: it sends, and translates what comes into values and errors.

    Raises UserNotFound and UpstreamError. Connections are pooled; `close` ends them.
    """

    def __init__(
        self,
        client: Client,
        *,
        url: str,
        paths: Mapping[str, str],
        max_body: int,
        trace: Trace | None = None,
    ) -> None:
        """`trace` follows one exchange, given its operation, method and URL.

        Raises ValueError for a URL that no call could be made to.
        """
        Url(url)
        self._client = client
        self._trace = trace
        self._max_body = max_body
        self._urls = {operation: (url + path).split("{id}") for operation, path in paths.items()}

    async def close(self) -> None:
        await self._client.close()

    async def users(self) -> list[User]:
        return _decode("getUsers", await self._get("getUsers"), _users)

    async def user(self, user_id: str) -> User:
        try:
            body = await self._get("getUserById", user_id)
        except UpstreamNotFound:
            raise UserNotFound(user_id) from None
        user = _decode("getUserById", body, _user) if body else None
        if user is None:
            raise UserNotFound(user_id)
        return user

    async def events(self) -> list[Event]:
        return _decode("getEvents", await self._get("getEvents"), _events)

    async def event(self, event_id: str) -> Event:
        return _decode("getEventById", await self._get("getEventById", event_id), _event)

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the upstream stores the event: ours, or that of an earlier try."""
        body = msgspec.json.encode(
            {
                "id": event_id,
                "userId": event.userId,
                "title": event.title,
                "description": event.description or "",
            }
        )
        url = self._urls["addEvent"][0]
        request = (
            self._client.post(url)
            .header("content-type", "application/json")
            .header("idempotency-key", idempotency_key)
            .body_bytes(body)
        )
        try:
            answer = await self._exchange("addEvent", "POST", url, request)
        except UpstreamNotFound:
            raise UserNotFound(event.userId) from None
        added = _decode("addEvent", answer, _added)
        if not added.success:
            raise UpstreamRefused(
                "addEvent", "The upstream refused the event.", reason="success:false"
            )
        return added.id if added.id is not None and is_id(added.id) else event_id

    def _get(self, operation: str, key: str = "") -> Coroutine[Any, Any, bytes]:
        url = key.join(self._urls[operation])
        return self._exchange(operation, "GET", url, self._client.get(url))

    async def _exchange(
        self, operation: str, method: str, url: str, request: RequestBuilder
    ) -> bytes:
        """Send the request with what goes along with every call; the body of a good answer."""
        call = context.current.get()
        if call is not None:
            request = request.header("x-request-id", call.request_id)
            if self._trace is None:
                request = request.header("traceparent", call.traceparent)
                if call.tracestate:
                    request = request.header("tracestate", call.tracestate)
        if self._trace is None:
            return await self._send(operation, request)
        with self._trace(operation, method, url) as exchange:
            for name, value in exchange.headers.items():
                request = request.header(name, value)
            return await self._send(operation, request, exchange)

    async def _send(
        self, operation: str, request: RequestBuilder, exchange: Exchange | None = None
    ) -> bytes:
        """The transport: status, headers, body. Alone this knows the client's ways."""
        attempt = context.attempt.get()
        try:
            # Nothing is read ahead, so that a 503 is one even if its body never ends.
            async with request.streamed_read_buffer_limit(0).build_streamed() as response:
                if attempt is not None:
                    attempt.heard()
                    attempt.pending = "the body was not complete"
                if exchange is not None:
                    exchange.answered(response.status)
                refuse_by_status(operation, response.status, partial(_header, response))
                return await self._read(operation, response, attempt)
        except RequestTimeoutError as exc:
            raise UpstreamTimeout(
                operation, "The upstream did not answer in time.", reason=_slow(exc)
            ) from exc
        except PyreqwestError as exc:
            raise _broken(operation, exc) from exc

    async def _read(self, operation: str, response: Response, attempt: Attempt | None) -> bytes:
        if _header(response, "content-encoding").lower() not in {"", "identity"}:
            raise _nonsense(operation, "encoded although we accept no encoding")
        limit = self._max_body
        declared = _header(response, "content-length")
        if declared and int(declared) > limit:
            raise _nonsense(operation, f"more than {limit} bytes")
        reader = response.body_reader
        chunks: list[bytes] = []
        size = 0
        while (chunk := await reader.read(limit + 1 - size)) is not None:
            if attempt is not None:
                attempt.heard()
            chunks.append(bytes(chunk))
            size += len(chunk)
            if size > limit:
                raise _nonsense(operation, f"more than {limit} bytes")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def refuse_by_status(operation: str, status: int, header: Callable[[str], str]) -> None:
    """Raise the error that a status stands for; `header` gives a header's value, "" without one."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    reason = f"status {status}"
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        raise UpstreamUnavailable(
            operation,
            "The upstream takes no calls at the moment.",
            reason=reason,
            retry_after=_seconds(header("retry-after")),
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UpstreamFailed(operation, "The upstream failed.", reason=reason)
    if status == HTTPStatus.NOT_FOUND:
        raise UpstreamNotFound(
            operation, "The upstream does not know what it was asked for.", reason=reason
        )
    raise UpstreamRefused(operation, "The upstream refused the call.", reason=reason)


def _decode(operation: str, body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _nonsense(operation, "not the JSON it should be") from exc


def _nonsense(operation: str, reason: str) -> UpstreamNonsense:
    return UpstreamNonsense(operation, NONSENSE, reason=reason)


def _header(response: Response, name: str) -> str:
    """The header's value, "" without one, and "?" for one that is not ASCII."""
    try:
        return response.get_header(name) or ""
    except ValueError:
        return "?"


def _seconds(retry_after: str) -> float | None:
    """Seconds from a Retry-After header: a number of seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isdecimal():
        return min(float(retry_after), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    # HTTP's dates are in GMT, its oldest form without saying so.
    seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _slow(exc: RequestTimeoutError) -> str:
    if isinstance(exc, ReadTimeoutError):
        return "timeout: the body was not complete in time"
    if _while_connecting(exc):
        return "timeout: no connection in time"
    return "timeout: no reply in time"


def _broken(operation: str, exc: PyreqwestError) -> UpstreamError:
    reason = f"{type(exc).__name__}: {': '.join(_causes(exc)[-2:])}"
    if isinstance(exc, DecodeError) and not isinstance(exc, BodyDecodeError):
        return UpstreamNonsense(operation, NONSENSE, reason=reason)
    if _while_connecting(exc):
        return UpstreamFailed(operation, "The upstream could not be reached.", reason=reason)
    return UpstreamBroken(operation, "The upstream broke off its reply.", reason=reason)


def _while_connecting(exc: PyreqwestError) -> bool:
    # The client's own class for this, ConnectError, stands for whatever ends before a reply.
    return "client error (Connect)" in _causes(exc)


def _causes(exc: PyreqwestError) -> list[str]:
    """What went wrong, outermost first, never empty; the first may hold the URL."""
    causes = getattr(exc, "details", {}).get("causes") or ()
    return [exc.message, *(cause["message"] for cause in causes)]

"""The events API over HTTP: the one seam that knows the client library."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

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
    UpstreamTimeout,
    UpstreamUnreadable,
    UserNotFound,
)
from event_service.models import Event, NewEvent, User
from event_service.sources.translation import (
    EVENT,
    EVENTS,
    NONSENSE,
    USER,
    USERS,
    Target,
    not_found,
    refuse_by_status,
    stored_id,
    unreadable,
)

# Seconds. Common servers hang up after 5 s; a write that meets them doing so may not be repeated.
IDLE_CONNECTION = 4.0
EVENTS_OF_USER = "getEventsByUserId"
# Statuses of replies that have no body: there is nothing more to say.
_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT}


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
        on_body: Callable[[bytes], None] | None = None,
    ) -> None:
        """`trace` follows one exchange, given its operation, method and URL. `on_body` is told the
        body of each good reply, before it is understood.

        Raises ValueError for a URL that no call could be made to.
        """
        Url(url)
        self._client = client
        self._trace = trace
        self._max_body = max_body
        self._on_body = on_body
        self._targets = {
            operation: Target(operation, "POST" if operation == "addEvent" else "GET", url + path)
            for operation, path in paths.items()
        }
        self.events_of: Callable[[str], Awaitable[list[Event]]] | None = (
            self._all_events_of if EVENTS_OF_USER in paths else None
        )

    async def close(self) -> None:
        await self._client.close()

    async def users(self) -> list[User]:
        return USERS.decode("getUsers", await self._get("getUsers"))

    async def user(self, user_id: str) -> User:
        body = await self._get_of_user("getUserById", user_id)
        user = USER.decode("getUserById", body) if body else None
        if user is None:
            raise UserNotFound(user_id, operation="getUserById", reason="no user in the reply")
        return user

    async def events(self) -> list[Event]:
        return EVENTS.decode("getEvents", await self._get("getEvents"))

    async def event(self, event_id: str) -> Event:
        event = EVENT.decode("getEventById", await self._get("getEventById", event_id))
        if event is None:
            raise not_found("getEventById", "no event in the reply")
        return event

    async def _all_events_of(self, user_id: str) -> list[Event]:
        return EVENTS.decode(EVENTS_OF_USER, await self._get_of_user(EVENTS_OF_USER, user_id))

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the upstream stores the event: the one in its reply, or else ours."""
        body = msgspec.json.encode(
            {
                "id": event_id,
                "userId": event.userId,
                "title": event.title,
                "description": event.description or "",
            }
        )
        target = self._targets["addEvent"]
        request = (
            self._client.post(target.url)
            .header("content-type", "application/json")
            .header("idempotency-key", idempotency_key)
            .body_bytes(body)
        )
        try:
            answer = await self._exchange(target, target.url, request)
        except UpstreamNotFound as error:
            raise _no_user(event.userId, error) from None
        except UpstreamUnreadable:
            return event_id
        return stored_id(answer, event_id)

    async def _get_of_user(self, operation: str, user_id: str) -> bytes:
        try:
            return await self._get(operation, user_id)
        except UpstreamNotFound as error:
            raise _no_user(user_id, error) from None

    def _get(self, operation: str, key: str = "") -> Coroutine[Any, Any, bytes]:
        target = self._targets[operation]
        url = _filled(target.url, key)
        return self._exchange(target, url, self._client.get(url))

    async def _exchange(self, target: Target, url: str, request: RequestBuilder) -> bytes:
        """Send the request with what goes along with every call; the body of a good answer."""
        call = context.current.get()
        if call is not None:
            request = request.header("x-request-id", call.request_id)
            if self._trace is None and call.traceparent is not None:
                request = request.header("traceparent", call.traceparent)
                if call.tracestate is not None:
                    request = request.header("tracestate", call.tracestate)
        if self._trace is None:
            return await self._send(target, request)
        with self._trace(target.operation, target.method, url) as exchange:
            for name, value in exchange.headers.items():
                request = request.header(name, value)
            return await self._send(target, request, exchange)

    async def _send(
        self, target: Target, request: RequestBuilder, exchange: Exchange | None = None
    ) -> bytes:
        """The transport: status, headers, body. Alone this knows the client's ways."""
        operation = target.operation
        attempt = context.attempt.get()
        try:
            # Nothing is read ahead, so that a 503 is one even if its body never ends.
            async with request.streamed_read_buffer_limit(0).build_streamed() as response:
                if attempt is not None:
                    attempt.heard()
                    attempt.pending = "the body was not complete"
                if exchange is not None:
                    exchange.answered(response.status)
                refuse_by_status(target, response.status, partial(_header, response))
                body = await self._read(operation, response, attempt)
                if self._on_body is not None:
                    self._on_body(body)
                return b"null" if response.status in _NO_BODY else body
        except RequestTimeoutError as exc:
            raise UpstreamTimeout(
                operation, "The upstream did not answer in time.", reason=_slow(exc)
            ) from exc
        except PyreqwestError as exc:
            raise _broken(operation, exc) from exc

    async def _read(self, operation: str, response: Response, attempt: Attempt | None) -> bytes:
        if _header(response, "content-encoding").lower() not in {"", "identity"}:
            raise unreadable(operation, "encoded although we accept no encoding")
        limit = self._max_body
        declared = _header(response, "content-length")
        if declared and int(declared) > limit:
            raise unreadable(operation, f"more than {limit} bytes")
        reader = response.body_reader
        chunks: list[bytes] = []
        size = 0
        while (chunk := await reader.read(limit + 1 - size)) is not None:
            if attempt is not None:
                attempt.heard()
            chunks.append(bytes(chunk))
            size += len(chunk)
            if size > limit:
                raise unreadable(operation, f"more than {limit} bytes")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _header(response: Response, name: str) -> str:
    """The header's value, "" without one, and "?" for one that is not ASCII."""
    try:
        return response.get_header(name) or ""
    except ValueError:
        return "?"


def _filled(template: str, key: str) -> str:
    """The template with the id in it: as it is in a path, encoded in a query."""
    before, marker, after = template.partition("{id}")
    if not marker:
        return template
    return f"{before}{quote(key, safe='') if '?' in before else key}{after}"


def _no_user(user_id: str, error: UpstreamNotFound) -> UserNotFound:
    return UserNotFound(user_id, operation=error.operation, reason=error.reason, usual=error.usual)


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

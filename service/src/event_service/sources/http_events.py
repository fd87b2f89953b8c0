"""The events API over HTTP. No other module calls it, or translates the HTTP client's errors."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import msgspec

from event_service import context
from event_service.errors import (
    EventServiceError,
    InvalidRequest,
    Overloaded,
    UpstreamBroken,
    UpstreamNotFound,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUnreadable,
    UserNotFound,
)
from event_service.libs import http_client
from event_service.libs.http_client import HttpClient, HttpClientError
from event_service.models import Event, NewEvent, User, is_id
from event_service.sources.translation import (
    EVENT,
    EVENTS,
    USER,
    USERS,
    Target,
    nonsense,
    not_found,
    refuse_by_status,
    stored_id,
    unreadable,
)

EVENTS_OF_USER = "getEventsByUserId"
# Looking up a member of the enumeration takes longer than building the request.
_OK = HTTPStatus.OK.value
# Successes without a body.
_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT}


class Exchange(Protocol):
    """Traces one HTTP exchange: adds `headers` to the request, and is told the status."""

    headers: dict[str, str]

    def answered(self, status: int) -> None: ...


class Trace(Protocol):
    def __call__(
        self, operation: str, method: str, url: str
    ) -> AbstractContextManager[Exchange]: ...


class _Request(NamedTuple):
    """What all requests of one operation share. The id goes between the two parts of the path.

    It is percent-encoded in a query, and sent as it is in a path.
    """

    target: Target
    before: str
    after: str
    in_query: bool


def _request(operation: str, url: str, path: str) -> _Request:
    method = "POST" if operation == "addEvent" else "GET"
    before, _, after = path.partition("{id}")
    return _Request(Target(operation, method, url + path), before, after, "?" in before)


class HttpEvents:
    """The events API over HTTP: sends requests, and translates replies into values and errors.

    Raises UserNotFound and UpstreamError. Connections are pooled; `close` ends them.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        url: str,
        paths: Mapping[str, str],
        time_limit: float,
        trace: Trace | None = None,
        on_body: Callable[[bytes], None] | None = None,
    ) -> None:
        """`time_limit` is for one exchange, in seconds. `trace`, given an operation, method and
        URL, traces that exchange. `on_body` gets the body of each success before it is decoded.
        """
        self._client = client
        self._url = url
        self._time_limit = time_limit
        self._trace = trace
        self._on_body = on_body
        self._requests = {
            operation: _request(operation, url, path) for operation, path in paths.items()
        }
        self.events_of: Callable[[str], Awaitable[list[Event]]] | None = (
            self._all_events_of if EVENTS_OF_USER in paths else None
        )

    async def close(self) -> None:
        await self._client.close()

    async def users(self) -> list[User]:
        return USERS.decode("getUsers", await self._exchange("getUsers"))

    async def user(self, user_id: str) -> User:
        body = await self._get_of_user("getUserById", user_id)
        user = USER.decode("getUserById", body) if body else None
        if user is None:
            raise UserNotFound(user_id, operation="getUserById", reason="no user in the reply")
        return user

    async def events(self) -> list[Event]:
        return EVENTS.decode("getEvents", await self._exchange("getEvents"))

    async def event(self, event_id: str) -> Event:
        event = EVENT.decode("getEventById", await self._exchange("getEventById", event_id))
        if event is None:
            raise not_found("getEventById", "no event in the reply")
        return event

    async def _all_events_of(self, user_id: str) -> list[Event]:
        return EVENTS.decode(EVENTS_OF_USER, await self._get_of_user(EVENTS_OF_USER, user_id))

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        """The id under which the upstream stored the event: the one in its reply, or else ours."""
        body = msgspec.json.encode(
            {
                "id": event_id,
                "userId": event.userId,
                "title": event.title,
                "description": event.description or "",
            }
        )
        headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
        try:
            answer = await self._exchange("addEvent", headers=headers, body=body)
        except UpstreamNotFound as error:
            raise _no_user(event.userId, error) from None
        except UpstreamUnreadable:
            return event_id
        return stored_id(answer, event_id)

    async def _get_of_user(self, operation: str, user_id: str) -> bytes:
        try:
            return await self._exchange(operation, user_id)
        except UpstreamNotFound as error:
            raise _no_user(user_id, error) from None

    def _exchange(
        self,
        operation: str,
        key: str = "",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Coroutine[Any, Any, bytes]:
        """Send a request with the headers that every call carries; return a success's body."""
        target, before, after, in_query = self._requests[operation]
        if in_query or not is_id(key):
            # Valid ids need no encoding. Encode the rest, so that it cannot reach another path.
            key = quote(key, safe="")
        path = f"{before}{key}{after}"
        headers = {} if headers is None else headers
        call = context.current.get()
        if call is not None:
            headers["x-request-id"] = call.request_id
        if self._trace is not None:
            return self._traced(self._trace, target, path, headers, body)
        if call is not None and call.traceparent is not None:
            headers["traceparent"] = call.traceparent
            if call.tracestate is not None:
                headers["tracestate"] = call.tracestate
        return self._send(target, path, headers, body)

    async def _traced(
        self, trace: Trace, target: Target, path: str, headers: dict[str, str], body: bytes
    ) -> bytes:
        with trace(target.operation, target.method, self._url + path) as exchange:
            headers |= exchange.headers
            return await self._send(target, path, headers, body, exchange)

    async def _send(
        self,
        target: Target,
        path: str,
        headers: dict[str, str],
        body: bytes,
        exchange: Exchange | None = None,
    ) -> bytes:
        """Send a request and read its reply."""
        attempt = context.attempt.get()
        try:
            reply = await self._client.send(
                target.method,
                path,
                headers=headers,
                body=body,
                time_limit=self._time_limit,
                watch=attempt,
            )
            if attempt is not None and not reply.complete:
                attempt.pending = "the body was not complete"
            if exchange is not None:
                exchange.answered(reply.status)
            if reply.status != _OK:
                _refuse_by_status(target, reply)
            answer = await reply.read()
        except HttpClientError as exc:
            raise _translated(target.operation, exc) from exc
        if self._on_body is not None:
            self._on_body(answer)
        return b"null" if reply.status in _NO_BODY else answer


def _refuse_by_status(target: Target, reply: http_client.Reply) -> None:
    try:
        refuse_by_status(target, reply.status, lambda name: reply.header(name.encode()))
    except EventServiceError:
        reply.discard()
        raise


def _no_user(user_id: str, error: UpstreamNotFound) -> UserNotFound:
    return UserNotFound(user_id, operation=error.operation, reason=error.reason, usual=error.usual)


def _translated(operation: str, exc: HttpClientError) -> EventServiceError:
    reason = str(exc)
    error: EventServiceError
    match exc:
        case http_client.TimedOut():
            text = "The upstream did not answer in time."
            error = UpstreamTimeout(operation, text, reason=f"timeout: {reason}")
        case http_client.TooLarge() | http_client.Undecodable():
            error = unreadable(operation, reason)
        case http_client.Malformed():
            error = nonsense(operation, reason)
        case http_client.Broken():
            error = UpstreamBroken(operation, "The upstream broke off its reply.", reason=reason)
        case http_client.InvalidRequest():
            error = InvalidRequest(f"The upstream cannot be told this: {reason}.")
        case http_client.OutOfResources() | http_client.ClientClosed():
            # A local problem: nothing reached the upstream, so this says nothing about it.
            error = Overloaded("There is no room for a connection to the upstream.", reason=reason)
        case _:
            text = "The upstream could not be reached."
            error = UpstreamUnreachable(operation, text, reason=reason)
    return error

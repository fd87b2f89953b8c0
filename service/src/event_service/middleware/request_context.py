import asyncio
import re
import time
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

import uuid_utils
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from event_service import context
from event_service.context import CallContext
from event_service.errors import ClientGone, InvalidRequest
from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.libs.trace_context import parse
from event_service.middleware.security_headers import add_security_headers
from event_service.middleware.upload import Uploads
from event_service.problems import problem_for
from event_service.signals import (
    STREAMED,
    UNMATCHED,
    Emit,
    RequestDone,
    RequestIdentified,
    RequestStarted,
)

# The status that nginx logs if the client left before the reply. It is never sent.
CLIENT_GONE = 499
# Time reserved for writing the answer: seconds, or this fraction of the deadline if that is less.
ANSWER = 0.25
ANSWER_SHARE = 0.1
# Bytes. Longer paths are cut in logs; the server accepts up to 64 KiB.
LONGEST_PATH = 2048

# RFC 9110, 7.2 with RFC 3986, 3.2.2: a name, an IPv4 address or an IPv6 address in brackets.
_is_host = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]*)?\Z").match
_encoded_slash = re.compile(rb"%2f", re.IGNORECASE)
_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}\Z").match


class RequestContext:
    """The outermost layer: it begins and ends every request.

    Every response carries `X-Request-ID`, the security headers and the call's `reply_headers`.
    Every error becomes a problem document. Every finished request is reported once.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        deadline: float,
        emit: Emit,
        notice: ShutdownNotice,
        routes: Iterable[BaseRoute] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline`: seconds from a request's arrival until its calls must end.
        `routes`: the routes of `app`, to name the route of a request that ends before routing.
        """
        self._app = app
        self._deadline = deadline
        self._to_answer = min(ANSWER, ANSWER_SHARE * deadline)
        self._emit = emit
        self._notice = notice
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._clock = clock
        self._uploads = Uploads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._clock()
        self._notice.in_flight += 1
        self._emit(RequestStarted(scope["method"]))
        call, failure = _identify(scope)
        if b"%" in scope["raw_path"]:
            scope["path"] = _path(scope["raw_path"])
        deadline = asyncio.get_running_loop().time() + self._deadline
        call.set_deadline(deadline, answer_by=deadline - self._to_answer)
        context.current.set(call)
        self._emit(RequestIdentified(call, scope))
        # With an app in the scope, Starlette raises 404 and 405 instead of answering them itself.
        scope["app"] = self
        call.reply_headers.append((b"x-request-id", call.request_id.encode()))
        reply = _Reply(send, call, self._notice)
        upload = self._uploads.of(scope, receive)
        try:
            if failure is None:
                try:
                    if not upload.over:
                        await upload.arrive(deadline=call.deadline)
                    await self._app(scope, upload.receive, reply.send)
                except ClientGone:
                    pass
                except Exception as error:  # noqa: BLE001  the boundary: every error gets its reply
                    failure = error
            if failure is not None and reply.status == 0:
                call.reply_headers += upload.reply_headers()
                await _send_problem(failure, scope, call, reply.send)
        finally:
            self._notice.in_flight -= 1
            self._emit(
                RequestDone(
                    method=scope["method"],
                    route=self._template(scope),
                    path=scope["raw_path"][:LONGEST_PATH].decode("latin-1"),
                    status=reply.status or CLIENT_GONE,
                    duration=self._clock() - started,
                    client=_client(scope),
                    request_id=call.request_id,
                    trace_id=call.trace_id,
                    sampled=call.sampled,
                    upstream_calls=call.upstream_calls,
                    failed_events=call.failed_events,
                    error=failure,
                    streamed=STREAMED in scope,
                )
            )
            # The error's traceback references this frame. Break the cycle, or both would keep the
            # connection alive until the next garbage collection.
            del failure
        if not upload.over:
            await upload.discard()

    def _template(self, scope: Scope) -> str:
        route = scope.get("route")
        # A router sets this key in every scope that it sees, even if no route matches.
        if route is None and "router" not in scope:
            route = _choose(self._routes, scope)
        return UNMATCHED if route is None else route.path_format


class _Reply:
    """Sends a reply with the headers that every response carries. `status` is 0 until it starts."""

    __slots__ = ("_call", "_notice", "_send", "status")

    def __init__(self, send: Send, call: CallContext, notice: ShutdownNotice) -> None:
        self._send = send
        self._call = call
        self._notice = notice
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            headers += self._call.reply_headers
            if self._notice.leaving:
                headers.append((b"connection", b"close"))
            add_security_headers(headers)
        await self._send(message)


def _identify(scope: Scope) -> tuple[CallContext, Exception | None]:
    """The request's identity, and an error if two HTTP parsers could read its head differently.

    The server itself refuses most such requests: folded headers, bad or conflicting lengths,
    control characters. It ignores a length beside a chunked body, and closes the connection after
    that request (RFC 9112, 6.3).
    """
    request_id = None
    traceparents: list[str] = []
    tracestates: list[str] = []
    fault: Exception | None = None
    hosts: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"x-request-id":
            request_id = value.decode("latin-1")
        elif name == b"traceparent":
            traceparents.append(value.decode("latin-1"))
        elif name == b"tracestate":
            tracestates.append(value.decode("latin-1"))
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            fault = InvalidRequest("The only transfer encoding of a body is 'chunked'.")
    if len(hosts) != 1 or not _is_host(hosts[0]):
        fault = _host_fault(hosts, scope["http_version"]) or fault
    if request_id is None or not _is_request_id(request_id):
        request_id = str(uuid_utils.uuid7())
    parent = parse(traceparents, tracestates) if traceparents else None
    call = CallContext(request_id, parent)
    if fault is not None:
        call.reply_headers.append((b"connection", b"close"))
    return call, fault


def _host_fault(hosts: list[bytes], version: str) -> Exception | None:
    """The error if RFC 9112, 3.2 requires a 400. The server adds an empty Host if there is none."""
    named = [host for host in hosts if host]
    if not named and version in {"1", "1.0"}:
        return None
    if len(named) == 1 and len(hosts) == 1:
        return InvalidRequest("The request's Host is not the name or address of a host.")
    return InvalidRequest("A request names one host.")


def _path(raw: bytes) -> str:
    """The decoded path. An encoded slash stays encoded, as part of its segment (RFC 3986, 2.2)."""
    return unquote_to_bytes(_encoded_slash.sub(b"%252F", raw)).decode("utf-8", "replace")


async def _send_problem(error: Exception, scope: Scope, call: CallContext, send: Send) -> None:
    problem = problem_for(error)
    body = problem.body(instance=scope["raw_path"].decode("latin-1"), request_id=call.request_id)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ]
    for name, value in problem.headers.items():
        headers.append((name.encode(), value.encode()))
    await send({"type": "http.response.start", "status": problem.row.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _choose(routes: Iterable[Route], scope: Scope) -> Route | None:
    """The route that Starlette's router would choose."""
    for_other_methods = None
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return route
        if match is Match.PARTIAL and for_other_methods is None:
            for_other_methods = route
    return for_other_methods


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""

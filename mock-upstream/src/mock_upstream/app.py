from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote

from aiohttp import web

from mock_upstream.add_event import Outcome
from mock_upstream.admin import Admin
from mock_upstream.failures import fail
from mock_upstream.journal import Entry
from mock_upstream.reply import Reply, array, encode, problem, respond
from mock_upstream.upstream import MockUpstream

_Operation = Callable[[web.BaseRequest, str], Awaitable[Reply]]


class App:
    """Serves one mock upstream: its five operations, each journalled and faulty as told."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._admin = Admin(mock)
        # By method, first path segment, and how many segments follow.
        self._operations: dict[tuple[str, str, int], _Operation] = {
            ("GET", "getUsers", 0): self._get_users,
            ("GET", "getUserById", 1): self._get_user,
            ("GET", "getEvents", 0): self._get_events,
            ("GET", "getEventById", 1): self._get_event,
            ("POST", "addEvent", 0): self._add_event,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Cancellation means that the client has left."""
        target = request.raw_path
        path, _, _ = target.partition("?")
        name, *rest = path.removeprefix("/").split("/")
        if name in {"__admin", "healthz"}:
            return await self._admin.handle(request, path)
        method, headers = request.method, request.headers
        operation = self._operations.get((method, name, len(rest)))
        entry = Entry(
            None if operation is None else name,
            method,
            target,
            time.time(),
            headers.get("Idempotency-Key"),
            headers.get("traceparent"),
            headers.get("X-Request-ID"),
        )
        self._mock.journal.begin(entry)
        began = time.perf_counter()
        try:
            if operation is None:
                response = _no_operation(method, path)
            else:
                reply = partial(operation, request, unquote(rest[0]) if rest else "")
                response = await self._perform(name, reply, request, entry)
            entry.status = response.status
            return response
        finally:
            self._mock.journal.end(entry, time.perf_counter() - began)

    async def _perform(
        self,
        name: str,
        reply: Callable[[], Awaitable[Reply]],
        request: web.BaseRequest,
        entry: Entry,
    ) -> web.StreamResponse:
        strike = self._mock.faults.strike(name)
        if strike is not None:
            if strike.delay:
                await asyncio.sleep(strike.delay)
            if strike.failure is not None:
                entry.fault = strike.failure.name
                return await fail(request, strike.failure, reply)
        return await respond(request, await reply())

    async def _get_users(self, _request: web.BaseRequest, _id: str) -> Reply:
        return array(self._mock.store.users())

    async def _get_user(self, _request: web.BaseRequest, user_id: str) -> Reply:
        user = self._mock.store.user(user_id)
        return _not_found("user", user_id) if user is None else Reply(HTTPStatus.OK, encode(user))

    async def _get_events(self, _request: web.BaseRequest, _id: str) -> Reply:
        return array(self._mock.store.events())

    async def _get_event(self, _request: web.BaseRequest, event_id: str) -> Reply:
        await asyncio.sleep(self._mock.event_delay)
        event = self._mock.store.event(event_id)
        if event is None:
            return _not_found("event", event_id)
        return Reply(HTTPStatus.OK, encode(event))

    async def _add_event(self, request: web.BaseRequest, _id: str) -> Reply:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            return Reply(error.status, encode(Outcome(success=False, message="body too large")))
        status, outcome = self._mock.add_event(body, request.headers.get("Idempotency-Key"))
        return Reply(status, encode(outcome))


def _no_operation(method: str, path: str) -> web.StreamResponse:
    return problem(HTTPStatus.NOT_FOUND, f"no operation {method} {path}")


def _not_found(kind: str, name: str) -> Reply:
    return Reply(HTTPStatus.NOT_FOUND, encode({"message": f"{kind} {name} not found"}))

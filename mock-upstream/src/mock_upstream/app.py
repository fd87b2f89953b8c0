from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from mock_upstream.add_event import Answer, Outcome
from mock_upstream.admin import Admin
from mock_upstream.failures import fail
from mock_upstream.journal import Entry
from mock_upstream.reply import JSON, Reply, array, encode, problem, respond
from mock_upstream.upstream import MockUpstream

VERSION = version("event-mock-upstream")


class _Operation(NamedTuple):
    """One operation at one path: `path` has `{id}` where the id goes."""

    name: str
    method: str
    path: str
    perform: Callable[[web.BaseRequest, str], Awaitable[Reply]]

    @property
    def key(self) -> tuple[str, str, int]:
        """Method, first path segment, and how many segments follow."""
        first, *rest = self.path.removeprefix("/").split("/")
        return self.method, first, len(rest)


class App:
    """Serves one mock upstream: its five operations, each journalled and faulty as told."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._admin = Admin(mock)
        operations = [
            _Operation("getUsers", "GET", "/getUsers", self._get_users),
            _Operation("getUserById", "GET", "/getUserById/{id}", self._get_user),
            _Operation("getEvents", "GET", "/getEvents", self._get_events),
            _Operation("getEventById", "GET", "/getEventById/{id}", self._get_event),
            _Operation("addEvent", "POST", "/addEvent", self._add_event),
        ]
        if mock.dialect.rest_paths:
            operations += [
                _Operation("getUsers", "GET", "/users", self._get_users),
                _Operation("getUserById", "GET", "/users/{id}", self._get_user),
                _Operation("getEvents", "GET", "/events", self._get_events),
                _Operation("getEventById", "GET", "/events/{id}", self._get_event),
                _Operation("addEvent", "POST", "/events", self._add_event),
            ]
        self._operations = {operation.key: operation for operation in operations}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Cancellation means that the client has left."""
        target = request.raw_path
        path, _, _ = target.partition("?")
        name, *rest = path.removeprefix("/").split("/")
        if name in {"__admin", "healthz"}:
            return await self._admin.handle(request, path)
        method, headers = request.method, request.headers
        if path == "/" and method == "GET":
            return web.Response(body=encode(self._index()), headers=JSON)
        operation = self._operations.get((method, name, len(rest)))
        entry = Entry(
            None if operation is None else operation.name,
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
                reply = partial(operation.perform, request, unquote(rest[0]) if rest else "")
                response = await self._perform(operation.name, reply, request, entry)
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

    def _index(self) -> dict[str, Any]:
        return {
            "name": "mock-upstream",
            "version": VERSION,
            "dialect": self._mock.dialect_name,
            "operations": [
                {"operation": each.name, "method": each.method, "path": each.path}
                for each in self._operations.values()
            ],
            "admin": "/__admin",
        }

    async def _get_users(self, _request: web.BaseRequest, _id: str) -> Reply:
        return array(map(self._mock.dialect.user, self._mock.store.users()))

    async def _get_user(self, _request: web.BaseRequest, user_id: str) -> Reply:
        user = self._mock.store.user(user_id)
        if user is None:
            return _not_found("user", user_id)
        return Reply(HTTPStatus.OK, encode(self._mock.dialect.user(user)))

    async def _get_events(self, request: web.BaseRequest, _id: str) -> Reply:
        store, user_id = self._mock.store, request.query.get("userId")
        events = store.events() if user_id is None else store.events_of(user_id)
        return array(map(self._mock.dialect.event, events))

    async def _get_event(self, _request: web.BaseRequest, event_id: str) -> Reply:
        await asyncio.sleep(self._mock.event_delay)
        event = self._mock.store.event(event_id)
        if event is None:
            return _not_found("event", event_id)
        return Reply(HTTPStatus.OK, encode(self._mock.dialect.event(event)))

    async def _add_event(self, request: web.BaseRequest, _id: str) -> Reply:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            answer = Answer(error.status, Outcome(success=False, message="body too large"))
        else:
            answer = self._mock.add_event(body, request.headers.get("Idempotency-Key"))
        status, content, headers = self._mock.dialect.added(answer)
        return Reply(status, b"" if content is None else encode(content), headers=JSON | headers)


def _no_operation(method: str, path: str) -> web.StreamResponse:
    detail = f"no operation {method} {path}; GET / lists what there is"
    return problem(HTTPStatus.NOT_FOUND, detail)


def _not_found(kind: str, name: str) -> Reply:
    return Reply(HTTPStatus.NOT_FOUND, encode({"message": f"{kind} {name} not found"}))

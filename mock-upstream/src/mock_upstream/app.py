from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote

from aiohttp import web

from mock_upstream.add_event import AddEvent, Cycle
from mock_upstream.admin import Admin
from mock_upstream.data import DataSet, GeneratedData, SampleData
from mock_upstream.failures import fail
from mock_upstream.faults import Faults
from mock_upstream.journal import Entry, Journal
from mock_upstream.reply import Reply, array, encode, problem, respond
from mock_upstream.store import Store

Operation = Callable[[web.BaseRequest, str], Awaitable[Reply]]


class MockUpstream:
    """The upstream's whole state, and the handler that serves it.

    `event_delay` is in seconds. Without `users` there are three sample users; with it, so many
    generated ones with `events_per_user` events each.
    """

    def __init__(
        self,
        *,
        event_delay: float = 0.5,
        users: int | None = None,
        events_per_user: int = 10,
        accept: int = 5,
        refuse: int = 10,
        seed: int = 0,
    ) -> None:
        data: DataSet = (
            SampleData() if users is None else GeneratedData(users, events_per_user, seed)
        )
        self.url = ""
        self.event_delay = event_delay
        self.store = Store(data)
        self.add_event = AddEvent(self.store, Cycle(accept, refuse))
        # By method and first path segment; the flag says whether an id follows.
        self._operations: dict[tuple[str, str], tuple[Operation, bool]] = {
            ("GET", "getUsers"): (self._get_users, False),
            ("GET", "getUserById"): (self._get_user, True),
            ("GET", "getEvents"): (self._get_events, False),
            ("GET", "getEventById"): (self._get_event, True),
            ("POST", "addEvent"): (self._add_event, False),
        }
        names = tuple(name for _, name in self._operations)
        self.faults = Faults(names, seed)
        self.journal = Journal(names)
        self._started_with = event_delay
        self._admin = Admin(self)

    def reset(self) -> None:
        """Back to how it started; calls in flight stay as they are."""
        self.event_delay = self._started_with
        self.store.clear()
        self.add_event.reset()
        self.faults.clear_all()
        self.journal.clear()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, _ = request.raw_path.partition("?")
        _, name, *rest = path.split("/")
        if name in {"__admin", "healthz"}:
            return await self._admin.handle(request, path)
        method = request.method
        operation, takes_id = self._operations.get((method, name), (None, False))
        if operation is None or len(rest) != takes_id:
            operation = None
        headers = request.headers
        entry = Entry(
            name if operation else None,
            method,
            request.raw_path,
            time.time(),
            headers.get("Idempotency-Key"),
            headers.get("traceparent"),
            headers.get("X-Request-ID"),
        )
        self.journal.begin(entry)
        began = time.perf_counter()
        try:
            if operation is None:
                response: web.StreamResponse = self._no_route(method, path)
            else:
                call = partial(operation, request, unquote(rest[0]) if takes_id else "")
                response = await self._perform(name, call, request, entry)
            entry.status = response.status
            return response
        finally:
            self.journal.end(entry, time.perf_counter() - began)

    async def _perform(
        self,
        name: str,
        call: Callable[[], Awaitable[Reply]],
        request: web.BaseRequest,
        entry: Entry,
    ) -> web.StreamResponse:
        strike = self.faults.strike(name)
        if strike is not None:
            if strike.delay:
                await asyncio.sleep(strike.delay)
            if strike.failure is not None:
                entry.fault = strike.failure.mode
                return await fail(request, strike.failure, call)
        return await respond(request, await call())

    def _no_route(self, method: str, path: str) -> web.Response:
        return problem(HTTPStatus.NOT_FOUND, f"no operation {method} {path}")

    async def _get_users(self, _request: web.BaseRequest, _id: str) -> Reply:
        return array(self.store.users())

    async def _get_user(self, _request: web.BaseRequest, user_id: str) -> Reply:
        user = self.store.user(user_id)
        if user is None:
            return _not_found("user", user_id)
        return Reply(HTTPStatus.OK, encode(user))

    async def _get_events(self, _request: web.BaseRequest, _id: str) -> Reply:
        return array(self.store.events())

    async def _get_event(self, _request: web.BaseRequest, event_id: str) -> Reply:
        await asyncio.sleep(self.event_delay)
        event = self.store.event(event_id)
        if event is None:
            return _not_found("event", event_id)
        return Reply(HTTPStatus.OK, encode(event))

    async def _add_event(self, request: web.BaseRequest, _id: str) -> Reply:
        body = await request.read()
        status, outcome = self.add_event(body, request.headers.get("Idempotency-Key"))
        return Reply(status, encode(outcome))


def _not_found(kind: str, name: str) -> Reply:
    return Reply(HTTPStatus.NOT_FOUND, encode({"message": f"{kind} {name} not found"}))

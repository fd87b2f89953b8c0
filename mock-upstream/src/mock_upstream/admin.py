from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from aiohttp import web

from mock_upstream.add_event import Cycle
from mock_upstream.faults import Fault
from mock_upstream.reply import JSON, encode, problem

if TYPE_CHECKING:
    from mock_upstream.app import MockUpstream


class EventDelay(msgspec.Struct, forbid_unknown_fields=True):
    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Admin:
    """`/__admin/…`: looks at the upstream and changes it while it runs."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._routes: dict[str, dict[str, Callable[[bytes], Any]]] = {
            "/healthz": {"GET": _health},
            "/__admin/health": {"GET": _health},
            "/__admin/faults": {"GET": self._faults, "DELETE": self._clear_faults},
            "/__admin/requests": {"GET": self._requests, "DELETE": self._clear_requests},
            "/__admin/reset": {"POST": self._reset},
            "/__admin/cycle": {"GET": self._cycle, "PUT": self._set_cycle},
            "/__admin/event-delay": {"GET": self._event_delay, "PUT": self._set_event_delay},
        }

    async def handle(self, request: web.BaseRequest, path: str) -> web.Response:
        methods = self._routes.get(path)
        if methods is None:
            before, _, operation = path.rpartition("/")
            if before != "/__admin/faults" or operation not in self._mock.journal.operations:
                return problem(HTTPStatus.NOT_FOUND, f"nothing at {path}")
            methods = self._fault_methods(operation)
        act = methods.get(request.method)
        if act is None:
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, f"use {', '.join(methods)}")
        try:
            answer = act(await request.read())
        except msgspec.DecodeError as error:
            return problem(HTTPStatus.BAD_REQUEST, str(error))
        return web.Response(body=encode(answer), headers=JSON)

    def _fault_methods(self, operation: str) -> dict[str, Callable[[bytes], Any]]:
        faults = self._mock.faults

        def put(body: bytes) -> Fault:
            faults.set(operation, msgspec.json.decode(body, type=Fault))
            return faults.get(operation)

        def delete(_body: bytes) -> Fault:
            faults.clear(operation)
            return faults.get(operation)

        return {"GET": lambda _body: faults.get(operation), "PUT": put, "DELETE": delete}

    def _faults(self, _body: bytes) -> dict[str, Fault]:
        return self._mock.faults.active()

    def _clear_faults(self, _body: bytes) -> dict[str, Fault]:
        self._mock.faults.clear_all()
        return {}

    def _requests(self, _body: bytes) -> dict[str, Any]:
        journal = self._mock.journal
        return {
            "requests": list(journal.entries),
            "counts": journal.counts,
            "in_flight": journal.total.in_flight,
            "max_in_flight": journal.total.max_in_flight,
            "operations": journal.operations,
        }

    def _clear_requests(self, body: bytes) -> dict[str, Any]:
        self._mock.journal.clear()
        return self._requests(body)

    def _reset(self, _body: bytes) -> dict[str, str]:
        self._mock.reset()
        return {"status": "reset"}

    def _cycle(self, _body: bytes) -> Cycle:
        return self._mock.add_event.cycle

    def _set_cycle(self, body: bytes) -> Cycle:
        self._mock.add_event.set_cycle(msgspec.json.decode(body, type=Cycle))
        return self._mock.add_event.cycle

    def _event_delay(self, _body: bytes) -> EventDelay:
        return EventDelay(self._mock.event_delay)

    def _set_event_delay(self, body: bytes) -> EventDelay:
        self._mock.event_delay = msgspec.json.decode(body, type=EventDelay).seconds
        return EventDelay(self._mock.event_delay)


def _health(_body: bytes) -> dict[str, str]:
    return {"status": "ok"}

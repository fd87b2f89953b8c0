from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from aiohttp import web

from mock_upstream.add_event import Cycle
from mock_upstream.faults import Fault
from mock_upstream.reply import JSON, encode, problem
from mock_upstream.upstream import OPERATIONS, MockUpstream

_Act = Callable[[web.BaseRequest], Awaitable[Any]]

_FAULTS = "/__admin/faults/"
_Limit = Annotated[int, msgspec.Meta(ge=0)]

_decode = msgspec.json.decode


class EventDelay(msgspec.Struct, forbid_unknown_fields=True):
    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Admin:
    """`/__admin/…`: looks at the upstream and changes it while it runs."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._routes: dict[str, dict[str, _Act]] = {
            "/healthz": {"GET": _health},
            "/__admin/health": {"GET": _health},
            "/__admin/requests": {"GET": self._requests, "DELETE": self._clear_requests},
            "/__admin/reset": {"POST": self._reset},
            "/__admin/cycle": {"GET": self._cycle, "PUT": self._set_cycle},
            "/__admin/event-delay": {"GET": self._event_delay, "PUT": self._set_event_delay},
            "/__admin/faults": {"GET": self._faults, "DELETE": self._clear_faults},
        }
        for operation in OPERATIONS:
            self._routes[f"{_FAULTS}{operation}"] = {
                "GET": partial(self._fault, operation),
                "PUT": partial(self._set_fault, operation),
                "DELETE": partial(self._clear_fault, operation),
            }

    async def handle(self, request: web.BaseRequest, path: str) -> web.Response:
        methods = self._routes.get(path)
        if methods is None:
            return problem(HTTPStatus.NOT_FOUND, _nothing_at(path))
        act = methods.get(request.method)
        if act is None:
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {', '.join(methods)}")
        try:
            answer = await act(request)
        except msgspec.DecodeError as error:
            return problem(HTTPStatus.BAD_REQUEST, str(error))
        return web.Response(body=encode(answer), headers=JSON)

    async def _faults(self, _request: web.BaseRequest) -> dict[str, Fault]:
        return self._mock.faults.active()

    async def _clear_faults(self, _request: web.BaseRequest) -> dict[str, Fault]:
        self._mock.faults.clear_all()
        return self._mock.faults.active()

    async def _fault(self, operation: str, _request: web.BaseRequest) -> Fault:
        return self._mock.faults.get(operation)

    async def _set_fault(self, operation: str, request: web.BaseRequest) -> Fault:
        self._mock.faults.set(operation, _decode(await request.read(), type=Fault))
        return self._mock.faults.get(operation)

    async def _clear_fault(self, operation: str, _request: web.BaseRequest) -> Fault:
        self._mock.faults.clear(operation)
        return self._mock.faults.get(operation)

    async def _requests(self, request: web.BaseRequest) -> dict[str, Any]:
        journal = self._mock.journal
        entries = list(journal.entries)
        limit = msgspec.convert(request.query.get("limit", len(entries)), _Limit, strict=False)
        return {
            "requests": entries[max(0, len(entries) - limit) :],
            "counts": journal.counts,
            "in_flight": journal.total.in_flight,
            "max_in_flight": journal.total.max_in_flight,
            "operations": journal.operations,
        }

    async def _clear_requests(self, request: web.BaseRequest) -> dict[str, Any]:
        self._mock.journal.clear()
        return await self._requests(request)

    async def _reset(self, _request: web.BaseRequest) -> dict[str, str]:
        self._mock.reset()
        return {"status": "reset"}

    async def _cycle(self, _request: web.BaseRequest) -> Cycle:
        return self._mock.add_event.cycle

    async def _set_cycle(self, request: web.BaseRequest) -> Cycle:
        self._mock.add_event.set_cycle(_decode(await request.read(), type=Cycle))
        return self._mock.add_event.cycle

    async def _event_delay(self, _request: web.BaseRequest) -> EventDelay:
        return EventDelay(self._mock.event_delay)

    async def _set_event_delay(self, request: web.BaseRequest) -> EventDelay:
        self._mock.event_delay = _decode(await request.read(), type=EventDelay).seconds
        return EventDelay(self._mock.event_delay)


def _nothing_at(path: str) -> str:
    if path.startswith(_FAULTS):
        return f"no operation {path.removeprefix(_FAULTS)}; there are {', '.join(OPERATIONS)}"
    return f"nothing at {path}"


async def _health(_request: web.BaseRequest) -> dict[str, str]:
    return {"status": "ok"}

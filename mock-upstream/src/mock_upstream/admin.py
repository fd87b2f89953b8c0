from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple, get_args

import msgspec
from aiohttp import web

from mock_upstream.cycle import Cycle
from mock_upstream.faults import Fault, Mode
from mock_upstream.reply import JSON, encode, problem
from mock_upstream.upstream import OPERATIONS, MockUpstream

_Act = Callable[[web.BaseRequest], Awaitable[Any]]

_FAULTS = "/__admin/faults/"
_Limit = Annotated[int, msgspec.Meta(ge=0)]

_decode = msgspec.json.decode


class _Route(NamedTuple):
    path: str
    about: str
    methods: dict[str, _Act]


class EventDelay(msgspec.Struct, forbid_unknown_fields=True):
    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Admin:
    """`/__admin/…`: looks at the upstream and changes it while it runs."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._routes = [
            _Route("/healthz", "whether it runs", {"GET": _health}),
            _Route("/__admin", "this list", {"GET": self._index}),
            _Route("/__admin/health", "whether it runs", {"GET": _health}),
            _Route(
                "/__admin/requests",
                "the latest calls, counts, and most in flight at once; ?limit=N: only N calls",
                {"GET": self._requests, "DELETE": self._clear_requests},
            ),
            _Route("/__admin/reset", "back to how it started", {"POST": self._reset}),
            _Route(
                "/__admin/cycle",
                "how many calls addEvent accepts and then refuses",
                {"GET": self._cycle, "PUT": self._set_cycle},
            ),
            _Route(
                "/__admin/event-delay",
                "seconds that getEventById takes",
                {"GET": self._event_delay, "PUT": self._set_event_delay},
            ),
            _Route(
                "/__admin/faults",
                "the faults of all operations",
                {"GET": self._faults, "DELETE": self._clear_faults},
            ),
            *(
                _Route(
                    f"{_FAULTS}{operation}",
                    f"what goes wrong with {operation}",
                    {
                        "GET": partial(self._fault, operation),
                        "PUT": partial(self._set_fault, operation),
                        "DELETE": partial(self._clear_fault, operation),
                    },
                )
                for operation in OPERATIONS
            ),
        ]
        self._by_path = {route.path: route.methods for route in self._routes}

    async def handle(self, request: web.BaseRequest, path: str) -> web.Response:
        methods = self._by_path.get(path.rstrip("/"))
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

    async def _index(self, _request: web.BaseRequest) -> dict[str, Any]:
        return {
            "paths": [
                {"path": route.path, "methods": list(route.methods), "about": route.about}
                for route in self._routes
            ],
            "fault": {
                "fields": list(Fault.__struct_fields__),
                "modes": get_args(Mode),
                "example": {"status": 503, "first_n": 2},
            },
        }

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
    return f"nothing at {path}; GET /__admin lists what there is"


async def _health(_request: web.BaseRequest) -> dict[str, str]:
    return {"status": "ok"}

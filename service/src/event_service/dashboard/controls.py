"""What operators can change from the dashboard: breakers, and faults of the mock upstream."""

from http import HTTPStatus
from typing import Annotated, Literal, Protocol, get_args

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.dashboard.control_route import Terms, Wish, audit, control_route, read_wish
from event_service.dashboard.operators import OperatorAccess, OperatorsOnly
from event_service.dashboard.orders import Action, Orders
from event_service.errors import InvalidRequest
from event_service.http.body import read_json
from event_service.http.endpoint import Endpoint, Reply

_Header = Annotated[str, msgspec.Meta(max_length=100)]
_NOTHING = Wish()


class Fault(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A fault of one operation, as the mock's admin API accepts it; times in seconds."""

    delay: Annotated[float, msgspec.Meta(ge=0, le=60)] | None = None
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    headers: Annotated[dict[_Header, _Header], msgspec.Meta(max_length=5)] | None = None
    mode: (
        Literal["none", "reset", "hang", "garbage", "truncate", "empty", "slow-body", "oversize"]
        | None
    ) = None


class Cycle(msgspec.Struct, forbid_unknown_fields=True):
    """The mock accepts `accept` new events, then refuses `refuse`, and starts again."""

    accept: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    refuse: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class EventDelay(msgspec.Struct, forbid_unknown_fields=True):
    """The mock's delay for a single event."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=60)]


class AdminReply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class MockAdmin(Protocol):
    """The mock upstream's admin API; paths are relative to its root."""

    async def get(self, path: str) -> AdminReply: ...
    async def put(self, path: str, body: bytes) -> AdminReply: ...
    async def delete(self, path: str) -> AdminReply: ...
    async def reset(self) -> AdminReply: ...


def breaker_controls(orders: Orders, terms: Terms) -> list[BaseRoute]:
    """Trip, isolate, release and reset."""
    actions = get_args(Action)

    async def act(request: Request) -> Reply:
        name, action = request.path_params["name"], request.path_params["action"]
        if name not in orders or action not in actions:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        wish = await read_wish(request, asks=terms.asks)
        audit(request, action, name, wish)
        orders.give(name, action, wish.seconds)
        return Reply(b"{}")

    return [control_route("/breakers/{name}/{action}", act, "POST", terms.access)]


def mock_controls(mock: MockAdmin, *, access: OperatorAccess | None) -> list[BaseRoute]:
    """The mock's faults, its accept/refuse cycle and its delay. For development only."""
    decode_fault = msgspec.json.Decoder(Fault)
    decode_cycle = msgspec.json.Decoder(Cycle)
    decode_delay = msgspec.json.Decoder(EventDelay)

    async def look(_request: Request) -> Reply:
        faults, cycle = await mock.get("/faults"), await mock.get("/cycle")
        delay = decode_delay.decode(_checked(await mock.get("/event-delay")))
        body = {
            "faults": msgspec.Raw(_checked(faults)),
            "cycle": msgspec.Raw(_checked(cycle)),
            "eventDelay": delay.seconds,
        }
        return Reply(msgspec.json.encode(body))

    async def set_fault(request: Request) -> Reply:
        operation = request.path_params["operation"]
        fault = await read_json(request, decode_fault)
        audit(request, "fault", operation, fault)
        return Reply(_checked(await mock.put(f"/faults/{operation}", msgspec.json.encode(fault))))

    async def heal(request: Request) -> Reply:
        operation = request.path_params["operation"]
        audit(request, "heal", operation, _NOTHING)
        return Reply(_checked(await mock.delete(f"/faults/{operation}")))

    async def set_cycle(request: Request) -> Reply:
        cycle = await read_json(request, decode_cycle)
        audit(request, "cycle", "addEvent", cycle)
        return Reply(_checked(await mock.put("/cycle", msgspec.json.encode(cycle))))

    async def set_delay(request: Request) -> Reply:
        delay = await read_json(request, decode_delay)
        audit(request, "event delay", "getEventById", delay)
        return Reply(_checked(await mock.put("/event-delay", msgspec.json.encode(delay))))

    async def reset(request: Request) -> Reply:
        audit(request, "reset", "mock upstream", _NOTHING)
        return Reply(_checked(await mock.reset()))

    look_route = Route(
        "/dashboard/controls/mock", OperatorsOnly(Endpoint(look), access), methods=["GET"]
    )
    return [
        look_route,
        control_route("/mock/faults/{operation}", set_fault, "PUT", access),
        control_route("/mock/faults/{operation}", heal, "DELETE", access),
        control_route("/mock/cycle", set_cycle, "PUT", access),
        control_route("/mock/event-delay", set_delay, "PUT", access),
        control_route("/mock/reset", reset, "POST", access),
    ]


def _checked(reply: AdminReply) -> bytes:
    if reply.status != HTTPStatus.OK:
        raise InvalidRequest(f"The upstream answered {reply.status}: is it the mock?")
    return reply.body

"""What may be changed from the dashboard: the breakers by hand, the mock upstream's faults."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Literal, Protocol, get_args

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.dashboard.operators import OperatorAccess, OperatorsOnly
from event_service.dashboard.orders import Action, Orders
from event_service.dashboard.same_origin import require_same_origin
from event_service.errors import Forbidden, InvalidRequest
from event_service.http.body import read_json
from event_service.http.endpoint import Endpoint, Reply

# A page of another site cannot add it without asking us first, which we would not grant.
CONTROL_HEADER = "x-dashboard-control"
_Act = Callable[[Request], Awaitable[Reply]]


class Fault(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A fault of one operation, as the mock's admin API takes it; times in seconds."""

    delay: Annotated[float, msgspec.Meta(ge=0, le=60)] | None = None
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    mode: Literal["none", "reset", "hang", "garbage", "truncate", "empty"] | None = None


class Cycle(msgspec.Struct, forbid_unknown_fields=True):
    """How many new events the mock accepts before it refuses how many, and so on round."""

    accept: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    refuse: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class AdminReply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class MockAdmin(Protocol):
    """The mock upstream's admin API, by path below its root."""

    async def get(self, path: str) -> AdminReply: ...
    async def put(self, path: str, body: bytes) -> AdminReply: ...
    async def reset(self) -> AdminReply: ...


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """How long, why and by whom, as the operator says; `seconds` None: as long as usual."""

    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    by: Annotated[str, msgspec.Meta(max_length=100)] | None = None


def breaker_controls(
    orders: Orders, *, access: OperatorAccess | None, asks: bool
) -> list[BaseRoute]:
    """Trip, isolate, release and reset. `asks`: a reason and a name are needed, for the log."""
    decode_wish = msgspec.json.Decoder(Wish)
    actions = get_args(Action)

    async def act(request: Request) -> Reply:
        name, action = request.path_params["name"], request.path_params["action"]
        if name not in orders or action not in actions:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        wish = await read_json(request, decode_wish) if has_body(request) else Wish()
        if asks and not ((wish.reason or "").strip() and (wish.by or "").strip()):
            raise InvalidRequest("Say why, and who you are: both go into the log.")
        details = {k: v for k, v in msgspec.structs.asdict(wish).items() if v is not None}
        _audit(request, action, name, **details)
        orders.give(name, action, wish.seconds)
        return Reply(b"{}")

    return [_control("/breakers/{name}/{action}", act, "POST", access)]


def has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0"


def mock_controls(mock: MockAdmin, *, access: OperatorAccess | None) -> list[BaseRoute]:
    """The mock's faults and its cycle of refusing. For development only."""
    decode_fault = msgspec.json.Decoder(Fault)
    decode_cycle = msgspec.json.Decoder(Cycle)

    async def look(_request: Request) -> Reply:
        faults, cycle = await mock.get("/faults"), await mock.get("/cycle")
        body = {"faults": msgspec.Raw(_checked(faults)), "cycle": msgspec.Raw(_checked(cycle))}
        return Reply(msgspec.json.encode(body))

    async def set_fault(request: Request) -> Reply:
        operation = request.path_params["operation"]
        fault = await read_json(request, decode_fault)
        _audit(request, "fault", operation, **msgspec.structs.asdict(fault))
        return Reply(_checked(await mock.put(f"/faults/{operation}", msgspec.json.encode(fault))))

    async def set_cycle(request: Request) -> Reply:
        cycle = await read_json(request, decode_cycle)
        _audit(request, "cycle", "addEvent", **msgspec.structs.asdict(cycle))
        return Reply(_checked(await mock.put("/cycle", msgspec.json.encode(cycle))))

    async def reset(request: Request) -> Reply:
        _audit(request, "reset", "mock upstream")
        return Reply(_checked(await mock.reset()))

    return [
        Route(
            "/dashboard/controls/mock",
            OperatorsOnly(Endpoint(look), access),
            methods=["GET"],
        ),
        _control("/mock/faults/{operation}", set_fault, "PUT", access),
        _control("/mock/cycle", set_cycle, "PUT", access),
        _control("/mock/reset", reset, "POST", access),
    ]


def _audit(request: Request, action: str, target: str, **details: object) -> None:
    client = request.client.host if request.client else ""
    structlog.get_logger().warning(
        "dashboard control used", action=action, target=target, client=client, **details
    )


def _control(path: str, act: _Act, method: str, access: OperatorAccess | None) -> BaseRoute:
    async def only_from_the_dashboard(request: Request) -> Reply:
        require_same_origin(request.headers)
        if CONTROL_HEADER not in request.headers:
            raise Forbidden(f"A control needs the header {CONTROL_HEADER}.")
        return await act(request)

    endpoint = OperatorsOnly(Endpoint(only_from_the_dashboard), access)
    return Route(f"/dashboard/controls{path}", endpoint, methods=[method])


def _checked(reply: AdminReply) -> bytes:
    if reply.status != HTTPStatus.OK:
        raise InvalidRequest(f"The upstream answered {reply.status}: is it the mock?")
    return reply.body

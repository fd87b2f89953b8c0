"""Controls: requests from the dashboard that change something. Each is logged."""

from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple

import msgspec
import structlog
from starlette.requests import Request
from starlette.routing import Route

from event_service.dashboard.operators import OperatorAccess, OperatorsOnly
from event_service.dashboard.same_origin import require_same_origin
from event_service.errors import Forbidden, InvalidRequest
from event_service.http.body import read_json
from event_service.http.endpoint import Endpoint, Reply

# Pages of other sites cannot send this header without a CORS preflight, which we refuse.
CONTROL_HEADER = "x-dashboard-control"
Act = Callable[[Request], Awaitable[Reply]]


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """How long, why and by whom, as the operator entered it. `seconds` None: the usual time."""

    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    by: Annotated[str, msgspec.Meta(max_length=100)] | None = None


_decode_wish = msgspec.json.Decoder(Wish)


class Terms(NamedTuple):
    """Who may use a control, and whether it `asks` for a reason and a name for the log."""

    access: OperatorAccess | None
    asks: bool = False


def control_route(path: str, act: Act, method: str, access: OperatorAccess | None) -> Route:
    async def only_from_the_dashboard(request: Request) -> Reply:
        require_same_origin(request.headers)
        if CONTROL_HEADER not in request.headers:
            raise Forbidden(f"A control needs the header {CONTROL_HEADER}.")
        return await act(request)

    endpoint = OperatorsOnly(Endpoint(only_from_the_dashboard), access)
    return Route(f"/dashboard/controls{path}", endpoint, methods=[method])


async def read_wish(request: Request, *, asks: bool) -> Wish:
    """Raises InvalidRequest if `asks` is set and the reason or the name is missing."""
    chunked = "transfer-encoding" in request.headers
    has_body = chunked or request.headers.get("content-length", "0") != "0"
    wish = await read_json(request, _decode_wish) if has_body else Wish()
    if asks and not ((wish.reason or "").strip() and (wish.by or "").strip()):
        raise InvalidRequest("Say why, and who you are: both go into the log.")
    return wish


def audit(request: Request, action: str, target: str, details: msgspec.Struct) -> None:
    """Log the use of a control, with the details that are set."""
    client = request.client.host if request.client else ""
    told = {k: v for k, v in msgspec.structs.asdict(details).items() if v is not None}
    structlog.get_logger().warning(
        "dashboard control used", action=action, target=target, client=client, **told
    )

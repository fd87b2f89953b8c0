"""The outbox's deliveries for operators: list, show, retry and drop them."""

from typing import Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.dashboard.control_route import Terms, audit, control_route, read_wish
from event_service.dashboard.operators import OperatorAccess, OperatorsOnly
from event_service.errors import DeliveryNotFound, InvalidRequest
from event_service.http.endpoint import Endpoint, Reply
from event_service.models import parse_id
from event_service.outbox.outbox import Outbox
from event_service.outbox.records import State
from event_service.outbox.shown import details_of, summary_of

MOST = 200
_USUAL = 25
# The largest integer in SQLite and PostgreSQL, and its digits.
_LAST = 2**63 - 1
_DIGITS = 19
Action = Literal["retry", "drop"]

_encode = msgspec.json.Encoder().encode


def outbox_pages(outbox: Outbox, *, access: OperatorAccess | None) -> list[BaseRoute]:
    """`?state=`, `?user=` and `?limit=` select deliveries, newest first; `?before=` selects those
    accepted before the one with this number.
    """

    async def get_list(request: Request) -> Reply:
        query = request.query_params
        found = await outbox.page(
            state=_state(query.get("state", "")),
            user_id=parse_id(user) if (user := query.get("user")) else None,
            before=_number(query.get("before", ""), most=_LAST),
            limit=_number(query.get("limit", ""), most=MOST) or _USUAL,
        )
        return Reply(_encode({"deliveries": [summary_of(each) for each in found]}))

    async def get_one(request: Request) -> Reply:
        delivery = await outbox.find(parse_id(request.path_params["id"]))
        return Reply(_encode(details_of(delivery)))

    return [
        Route(path, OperatorsOnly(Endpoint(get), access), methods=["GET"])
        for path, get in (
            ("/dashboard/outbox", get_list),
            ("/dashboard/outbox/{id}", get_one),
        )
    ]


def outbox_controls(outbox: Outbox, terms: Terms) -> list[BaseRoute]:
    """Retry and drop, as in `event-service outbox`."""

    async def act(request: Request) -> Reply:
        delivery_id, action = parse_id(request.path_params["id"]), request.path_params["action"]
        if action not in get_args(Action):
            raise DeliveryNotFound
        wish = await read_wish(request, asks=terms.asks)
        delivery = await outbox.find(delivery_id)
        audit(request, f"outbox {action}", delivery_id, wish)
        if action == "drop":
            await outbox.drop(delivery_id)
        elif not await outbox.retry(delivery_id):
            raise InvalidRequest(
                f"It is {delivery.state}: only what was refused or is dead can be queued again."
            )
        return Reply(b"{}")

    return [control_route("/outbox/{id}/{action}", act, "POST", terms.access)]


def _state(text: str) -> State | None:
    if not text:
        return None
    try:
        return State(text)
    except ValueError:
        raise InvalidRequest(f"state must be one of {', '.join(State)}.") from None


def _number(text: str, *, most: int) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and 0 < int(text) <= most):
        raise InvalidRequest(f"limit and before must be numbers from 1; limit at most {MOST}.")
    return int(text)

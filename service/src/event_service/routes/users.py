from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service import context
from event_service.errors import InvalidRequest
from event_service.http.endpoint import Endpoint, Reply
from event_service.models import PartialEvents, parse_id
from event_service.problems import problem_for
from event_service.services.source import EventsSource
from event_service.services.user_events import UserEvents

_encode = msgspec.json.Encoder().encode
# With `path`, an id that contains an encoded slash reaches the id check.
EVENTS_BY_USER_ID = "/api/getEventsByUserId/{id:path}"
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def user_routes(source: EventsSource, user_events: UserEvents) -> list[BaseRoute]:
    async def get_users(_request: Request) -> Reply:
        return Reply(_encode(await source.users()))

    async def get_events_by_user_id(request: Request) -> Reply:
        user_id = _user_id(request)
        if _partial(request):
            partial = await user_events.for_user_partial(user_id)
            context.require().failed_events = len(partial.errors)
            return Reply(_encode(_partial_reply(partial)))
        return Reply(_encode(await user_events.for_user(user_id)))

    return [
        # First, because the router tries routes in order and most requests are for this one.
        Route(EVENTS_BY_USER_ID, Endpoint(get_events_by_user_id), methods=["GET"]),
        Route("/api/getUsers", Endpoint(get_users), methods=["GET"]),
    ]


def _user_id(request: Request) -> str:
    raw_path: bytes = request.scope["raw_path"]
    if raw_path.count(b"/") > EVENTS_BY_USER_ID.count("/"):
        raise HTTPException(404)
    return parse_id(request.path_params["id"])


def _partial(request: Request) -> bool:
    if not request.scope["query_string"]:
        return False
    values = request.query_params.getlist("partial")
    if not values:
        return False
    if len(values) > 1 or values[0] not in _FLAGS:
        raise InvalidRequest("The query parameter 'partial' is 'true' or 'false', given once.")
    return _FLAGS[values[0]]


def _partial_reply(partial: PartialEvents) -> dict[str, Any]:
    return {
        "events": partial.events,
        "errors": [
            {"id": event_id, **problem_for(error).members} for event_id, error in partial.errors
        ],
        "partial": bool(partial.errors),
    }

import re

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.errors import InvalidRequest
from event_service.http.body import read_json
from event_service.http.endpoint import Endpoint, Reply
from event_service.models import NewEvent
from event_service.routes.deliveries import Deliveries
from event_service.routes.prefer import parse_prefer
from event_service.services.add_event import AddEvent
from event_service.services.source import EventsSource

_encode = msgspec.json.Encoder().encode
_new_event = msgspec.json.Decoder(NewEvent)
_is_key = re.compile(rb"[\x21-\x7e]{1,255}\Z").match


def event_routes(
    source: EventsSource,
    add_event: AddEvent,
    *,
    api_key_header: str = "",
    deliveries: Deliveries | None = None,
) -> list[BaseRoute]:
    """`api_key_header` names the header with a client's API key; "" if clients have none.

    Without `deliveries`, `Prefer: respond-async` has no effect.
    """

    async def get_events(_request: Request) -> Reply:
        return Reply(_encode(await source.events()))

    async def post_add_event(request: Request) -> Reply:
        key = _idempotency_key(request)
        event = await read_json(request, _new_event)
        if deliveries is not None:
            preference = parse_prefer(request.headers.getlist("prefer"))
            if preference.respond_async:
                identity = add_event.identify(event, idempotency_key=key, api_key=api_key(request))
                return await deliveries.accept(
                    event, identity, preference, client_key=key, api_key=api_key(request)
                )
        event_id = await add_event.add(event, idempotency_key=key, api_key=api_key(request))
        return Reply(_encode({"success": True, "id": event_id}))

    def api_key(request: Request) -> str | None:
        return request.headers.get(api_key_header, "") if api_key_header else None

    return [
        # First, because the router tries routes in order and most requests are for this one.
        Route("/api/addEvent", Endpoint(post_add_event), methods=["POST"]),
        Route("/api/getEvents", Endpoint(get_events), methods=["GET"]),
        *(deliveries.routes(api_key) if deliveries is not None else []),
    ]


def _idempotency_key(request: Request) -> str | None:
    key: bytes | None = None
    for name, value in request.scope["headers"]:
        if name == b"idempotency-key":
            if key is not None or not _is_key(value):
                raise InvalidRequest(
                    "An Idempotency-Key is 1 to 255 visible ASCII characters, given once."
                )
            key = value
    return None if key is None else key.decode()

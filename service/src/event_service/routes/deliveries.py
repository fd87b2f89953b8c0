"""Durable writes over HTTP: accepts an event now and delivers it later."""

import asyncio
import math
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from event_service import context
from event_service.errors import UpstreamRejected
from event_service.http.endpoint import Endpoint, Reply
from event_service.models import NewEvent, parse_id
from event_service.outbox.entry import client_of, new_delivery
from event_service.outbox.outbox import Outbox
from event_service.outbox.records import Delivery, State
from event_service.outbox.shown import status_of
from event_service.routes.prefer import Preference
from event_service.services.event_identity import EventIdentity

_encode = msgspec.json.Encoder().encode


class Deliveries:
    """Accepts events for later delivery, and reports their state."""

    def __init__(self, outbox: Outbox, *, next_try: Callable[[], float]) -> None:
        """`next_try`: returns the seconds until the upstream may be called."""
        self._outbox = outbox
        self._next_try = next_try

    async def accept(
        self,
        event: NewEvent,
        identity: EventIdentity,
        preference: Preference,
        *,
        client_key: str | None,
        api_key: str | None,
    ) -> Reply:
        """202 with a `Location`, or 200 if the event is delivered within the preferred wait.

        Raises UpstreamRejected if it is refused within that wait, and what `Outbox.accept` raises.
        """
        call = context.require()
        accepted = await self._outbox.accept(
            new_delivery(
                event,
                event_id=identity.event_id,
                upstream_key=identity.idempotency_key,
                client_key=client_key,
                api_key=api_key,
                call=call,
            )
        )
        state = accepted.state
        left = call.answer_by - asyncio.get_running_loop().time()
        if preference.wait > 0:
            delivery = await self._outbox.settled(accepted.id, within=min(preference.wait, left))
            if delivery.state is State.DELIVERED:
                return Reply(_encode({"success": True, "id": delivery.event_id}))
            if delivery.state is State.REFUSED:
                raise _refusal(delivery)
            state = delivery.state
        return Reply(
            _encode({"id": accepted.id, "status": state}),
            status=202,
            headers={
                "location": f"/api/addEvent/{accepted.id}",
                "preference-applied": "respond-async",
                "retry-after": self._retry_after(),
            },
        )

    def routes(self, api_key_of: Callable[[Request], str | None]) -> list[Route]:
        """`api_key_of` returns the API key of a request; None if clients have no keys."""

        async def get_delivery(request: Request) -> Reply:
            delivery_id = parse_id(request.path_params["id"])
            api_key = api_key_of(request)
            client = None if api_key is None else client_of(api_key)
            delivery = await self._outbox.find(delivery_id, client=client)
            queued = delivery.state is State.QUEUED
            headers = {"retry-after": self._retry_after()} if queued else {}
            return Reply(_encode(status_of(delivery)), headers=headers)

        return [Route("/api/addEvent/{id}", Endpoint(get_delivery), methods=["GET"])]

    def _retry_after(self) -> str:
        return str(max(1, math.ceil(self._next_try())))


def _refusal(delivery: Delivery) -> UpstreamRejected:
    problem = msgspec.json.decode(delivery.last_error or b"{}")
    return UpstreamRejected(
        "addEvent",
        problem.get("detail", "The upstream refused the event."),
        reason="refused as a delivery",
        upstream_status=problem.get("upstream_status", problem.get("status", 422)),
    )

"""The events API as two FastAPI peers see it, whatever HTTP client they call it with."""

import asyncio
import os
from collections.abc import Awaitable, Callable

from circuitbreaker import circuit
from pydantic import BaseModel, TypeAdapter

UPSTREAM_URL = os.environ["UPSTREAM_URL"]
TIMEOUT = 2.0  # seconds


class UpstreamError(Exception):
    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


class NotFound(Exception):
    pass


class User(BaseModel):
    id: str
    name: str
    events: list[str]


class Event(BaseModel):
    id: str
    userId: str
    title: str
    description: str = ""


USERS = TypeAdapter(list[User])
EVENTS = TypeAdapter(list[Event])

Send = Callable[[str, str, dict[str, str] | None], Awaitable[tuple[int, bytes]]]

reading = {
    "failure_threshold": 20,
    "recovery_timeout": float(os.environ.get("BREAKER_COOLDOWN", "10")),
    "expected_exception": UpstreamError,
}
writing = {**reading, "failure_threshold": 3}


class EventsApi:
    """`send` takes a method, a path and a JSON body, and gives a status and a body."""

    def __init__(self, send: Send):
        self.send = send

    async def call(self, method: str, path: str, body: dict[str, str] | None = None) -> bytes:
        status, content = await self.send(method, path, body)
        if status == 404:
            raise NotFound
        if status != 200:
            raise UpstreamError(503 if status == 503 else 502, f"the upstream answered {status}")
        return content

    @circuit(name="users", **reading)
    async def users(self) -> list[User]:
        return USERS.validate_json(await self.call("GET", "/getUsers"))

    @circuit(name="events", **reading)
    async def events(self) -> list[Event]:
        return EVENTS.validate_json(await self.call("GET", "/getEvents"))

    @circuit(name="user", **reading)
    async def user(self, user_id: str) -> User:
        return User.model_validate_json(await self.call("GET", f"/getUserById/{user_id}"))

    @circuit(name="event", **reading)
    async def event(self, event_id: str) -> Event:
        return Event.model_validate_json(await self.call("GET", f"/getEventById/{event_id}"))

    async def events_of(self, user_id: str) -> list[Event]:
        user = await self.user(user_id)
        return await asyncio.gather(*[self.event(event_id) for event_id in user.events])

    @circuit(name="add_event", **writing)
    async def add_event(self, event: dict[str, str]) -> None:
        await self.call("POST", "/addEvent", event)

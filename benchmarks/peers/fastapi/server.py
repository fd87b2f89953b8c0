"""The HTTP edge that the FastAPI peers share: validation, metrics, one log line a request."""

import logging
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

from circuitbreaker import CircuitBreakerError
from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from pythonjsonlogger.json import JsonFormatter
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from upstream import Event, EventsApi, NotFound, UpstreamError, User

ID_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
Id = Annotated[str, Field(pattern=ID_PATTERN)]


class NewEvent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    userId: Id
    title: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=2000)] = ""


class Added(BaseModel):
    success: bool
    id: str


DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from the request to the end of its reply",
    ["method", "route", "status"],
)
LOG = logging.getLogger("peer")
UNLOGGED = {"/livez", "/metrics"}


class Observe:
    """One metric and one log line a request, as pure ASGI middleware."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            elapsed = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            DURATION.labels(scope["method"], route, status).observe(elapsed)
            if route not in UNLOGGED:
                LOG.info(
                    "request",
                    extra={
                        "method": scope["method"],
                        "path": scope["path"],
                        "route": route,
                        "status": status,
                        "duration_ms": round(elapsed * 1000, 3),
                    },
                )


def log_json_lines() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(timestamp=True))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


router = APIRouter()


@router.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/getUsers")
async def get_users(request: Request) -> list[User]:
    return await request.state.api.users()


@router.get("/api/getEvents")
async def get_events(request: Request) -> list[Event]:
    return await request.state.api.events()


@router.get("/api/getEventsByUserId/{user_id}")
async def get_events_by_user_id(
    user_id: Annotated[str, Path(pattern=ID_PATTERN)], request: Request
) -> list[Event]:
    return await request.state.api.events_of(user_id)


@router.post("/api/addEvent")
async def add_event(new: NewEvent, request: Request) -> Added:
    event_id = str(uuid.uuid4())
    await request.state.api.add_event({**new.model_dump(), "id": event_id})
    return Added(success=True, id=event_id)


async def upstream_failed(_: Request, error: UpstreamError) -> Response:
    return JSONResponse({"title": str(error)}, error.status)


async def not_found(_: Request, _error: NotFound) -> Response:
    return JSONResponse({"title": "not found"}, 404)


async def circuit_open(_: Request, _error: CircuitBreakerError) -> Response:
    return JSONResponse({"title": "the circuit is open"}, 503)


def create_app(connect: AbstractAsyncContextManager[EventsApi]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, EventsApi]]:
        log_json_lines()
        async with connect as api:
            yield {"api": api}

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    app.add_middleware(Observe)
    app.add_exception_handler(UpstreamError, upstream_failed)
    app.add_exception_handler(NotFound, not_found)
    app.add_exception_handler(CircuitBreakerError, circuit_open)
    return app

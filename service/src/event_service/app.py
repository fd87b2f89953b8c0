"""The composition root: settings in, ASGI app out. Things are built here and nowhere else."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import structlog
import uuid_utils
from starlette.routing import Router
from starlette.types import ASGIApp

from event_service.errors import Overloaded, UpstreamFault
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.middleware.request_context import RequestContext
from event_service.models import Event, User
from event_service.routes.events import event_routes
from event_service.routes.ops import health_routes
from event_service.routes.users import user_routes
from event_service.services.add_event import AddEvent, EventSink
from event_service.services.user_events import UserEvents, UsersAndEvents
from event_service.settings import Settings, load_settings
from event_service.telemetry.logs import LogLines, configure_logging
from event_service.telemetry.signals import Signals
from event_service.upstream.events_api import HttpEventsApi, build_client
from event_service.upstream.policy import Guard, Observer, Read
from halfopen import CircuitBreaker, FailureCount, FailureRate, TimeWindow

READ_OPERATIONS = ("getUsers", "getUserById", "getEvents", "getEventById")
# Callers that may wait for the upstream for each that is under way: at 500 ms a call the last of
# them is served within the default deadline of 5 s.
QUEUE_FACTOR = 10


class EventsApi(UsersAndEvents, EventSink, Protocol):
    """All that the routes need of a source of users and events."""

    async def users(self) -> list[User]: ...

    async def events(self) -> list[Event]: ...


def create_app(
    settings: Settings,
    *,
    api: EventsApi | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ASGIApp:
    """The whole service as one ASGI app. `api` stands in for the upstream in tests."""
    signals = Signals([LogLines()])
    breakers = build_breakers(settings, clock=clock)
    for breaker in breakers.values():
        signals.watch(breaker)
    close: Callable[[], Any] | None = None
    if api is None:
        api, close = build_events_api(settings, breakers, observer=signals, clock=clock)

    @asynccontextmanager
    async def lifespan(_router: Router) -> AsyncIterator[None]:
        structlog.get_logger().info("service started", settings=settings.masked())
        yield
        if close is not None:
            await close()
        structlog.get_logger().info("service stopped")

    router = Router(
        routes=[
            *user_routes(api.users, UserEvents(api, limit=settings.upstream_concurrency)),
            *event_routes(api.events, AddEvent(api, new_id=_new_id)),
            *health_routes(breakers),
        ],
        redirect_slashes=False,
        lifespan=lifespan,
    )
    return RequestContext(
        router,
        deadline=settings.request_deadline,
        observer=signals,
        clock=clock,
    )


def from_environment() -> ASGIApp:
    """What a server process runs: logging set up, settings from the environment."""
    settings = load_settings()
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    return create_app(settings)


def build_breakers(settings: Settings, *, clock: Callable[[], float]) -> dict[str, CircuitBreaker]:
    """A breaker for each upstream operation: counting for writes, by failure rate for reads."""
    build = partial(
        CircuitBreaker,
        cooldown=settings.breaker_cooldown,
        failure_on=UpstreamFault,
        ignore=(Overloaded,),
        clock=clock,
    )
    writes = FailureCount(settings.breaker_failures, within=settings.breaker_window)
    reads = FailureRate(0.5, over=TimeWindow(10.0), minimum_calls=20)
    return {
        "addEvent": build("addEvent", trip=writes),
        **{operation: build(operation, trip=reads) for operation in READ_OPERATIONS},
    }


def build_events_api(
    settings: Settings,
    breakers: dict[str, CircuitBreaker],
    *,
    observer: Observer,
    clock: Callable[[], float],
) -> tuple[HttpEventsApi, Callable[[], Any]]:
    """The events API over HTTP with its policies, and what closes it."""
    client = build_client(
        headers={k: v.get_secret_value() for k, v in settings.upstream_headers.items()},
        # An attempt ends before its request does: a hanging upstream must not look like
        # callers who went away.
        timeout=min(settings.upstream_timeout, 0.9 * settings.request_deadline),
    )
    bulkhead = Bulkhead(
        settings.upstream_concurrency, max_waiting=QUEUE_FACTOR * settings.upstream_concurrency
    )
    budget = RetryBudget(settings.retry_budget, clock=clock)
    api = HttpEventsApi(
        client,
        url=settings.upstream_url,
        paths=settings.upstream_paths,
        max_body=settings.upstream_max_body,
        guards={
            operation: Guard(
                operation, breaker=breaker, bulkhead=bulkhead, observer=observer, clock=clock
            )
            for operation, breaker in breakers.items()
        },
        read=partial(
            Read,
            single_flight=settings.single_flight,
            attempts=settings.retry_attempts,
            budget=budget,
            observer=observer,
            clock=clock,
        ),
    )
    return api, client.close


def _new_id() -> str:
    return str(uuid_utils.uuid7())

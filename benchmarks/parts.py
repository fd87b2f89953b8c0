"""The layers of a request one by one, each around nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from math import inf

import msgspec
from starlette.routing import Router

from benchmarks import data
from benchmarks.in_process import BY_USER, Client, Work, answer, nothing, scope
from event_service.dashboard.live import Identity, LiveFeed
from event_service.http.request_watch import RequestWatches
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.fan_out import fan_out
from event_service.libs.retry import Retries, RetryBudget
from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.libs.single_flight import SingleFlight
from event_service.middleware.load_shedding import LoadShedding
from event_service.middleware.request_context import RequestContext
from event_service.models import Event
from event_service.routes.exact_paths import matching_exactly
from event_service.routes.users import EVENTS_BY_USER_ID, user_routes
from event_service.settings import Settings
from event_service.signals import GuardsBuilt, RequestDone, Signals
from event_service.sources.policy import Guard, Read
from event_service.telemetry.cells import Cells
from event_service.telemetry.log_lines import LogLines
from event_service.telemetry.metrics import Metrics
from event_service.wiring.policies import build_breakers, build_policies

CALLS = 5000  # in one round of a row
IN_A_TURN = 10  # calls in one turn of the event loop: so many log lines share a write
OPERATION = "getUserById"


def part(call: Callable[[], Awaitable[object]], *, each: int = 1) -> Work:
    """`each`: how many of what the figure is for are in a call."""

    async def work() -> int:
        for _ in range(CALLS // each // IN_A_TURN):
            for _ in range(IN_A_TURN):
                await call()
            await asyncio.sleep(0)
        return CALLS

    return work


def plain(call: Callable[[], object]) -> Work:
    async def awaited() -> None:
        call()

    return part(awaited)


def parts(settings: Settings) -> dict[str, Work]:
    """The work of each row, by its title."""
    loop = asyncio.get_running_loop()
    clock = time.monotonic
    bulkhead = Bulkhead(settings.upstream_concurrency, max_waiting=0)
    budget = RetryBudget(settings.retry_budget)
    log, metrics = LogLines(slow_request=settings.slow_request), Metrics(Cells(), version="")
    dashboard = LiveFeed(
        identity=Identity("", "", 1),
        operations=[OPERATION],
        bulkhead=bulkhead,
        budget=budget,
        clock=clock,
    )
    dashboard.add_endpoint(EVENTS_BY_USER_ID, ["GET"])
    signals = Signals()
    for listener in (log, metrics, dashboard):
        listener.listen(signals)
    breaker, heard = (build_breakers(settings, [OPERATION], clock=clock)[OPERATION] for _ in "ab")
    policies = build_policies(settings, [OPERATION], emit=signals.emit, clock=clock, cluster=None)
    policies = replace(policies, breakers={OPERATION: heard}, budget=budget, bulkhead=bulkhead)
    signals.emit(GuardsBuilt(policies.breakers, bulkhead, budget))
    guard, read = Guard(OPERATION, policies), Read(OPERATION, nothing, policies)
    retries = Retries(
        settings.retry_attempts,
        budget=budget,
        retry_after=lambda _error: None,
        backoff=lambda _attempt: 0.0,
        until=lambda: inf,
        clock=clock,
        on_retry=nothing,
        on_give_up=nothing,
    )
    routes = matching_exactly(user_routes(nothing, None))
    for route in routes:
        route.app = nothing
    router = Router(routes=routes, redirect_slashes=False)
    context = partial(
        RequestContext, answer, deadline=settings.request_deadline, notice=ShutdownNotice()
    )
    silent, told = context(emit=Signals().emit), context(emit=signals.emit)
    shedding = LoadShedding(nothing, max_in_flight=settings.max_in_flight, emit=signals.emit)
    record = RequestDone(
        method="GET",
        route=EVENTS_BY_USER_ID,
        path=BY_USER + "u1-0",
        status=200,
        duration=0.002,
        client="127.0.0.1",
        request_id="01a2038b-91ad-76c3-be35-8ddebeeda27c",
        trace_id="5f2ac1bb9d2e4c46a3ba1b0a4ab41c0c",
        upstream_calls=1,
        error=None,
    )
    flights, client, watches = SingleFlight(), Client(), RequestWatches()
    keys = range(10)
    event = data.encode(data.event("u1-10-1")).encode()
    decode, encode = msgspec.json.Decoder(Event).decode, msgspec.json.Encoder().encode
    events = [decode(event) for _ in keys]

    def asked() -> dict:
        return scope(BY_USER + "u1-0")

    def soon(_key: int) -> asyncio.Future[None]:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        return future

    async def exchanged() -> None:
        reply = await client.send("GET", "/getUserById/u1-0")
        await reply.read()

    async def watched() -> None:
        with watches(nothing, deadline=loop.time() + settings.request_deadline):
            pass

    async def limited() -> None:
        await bulkhead.acquire()
        bulkhead.release()

    return {
        "an empty coroutine (in each below)": part(nothing),
        "the HTTP client's stand-in (in each call above)": part(exchanged),
        "a scope as the server makes it (in the next four)": plain(asked),
        "Starlette's router": part(lambda: router(asked(), nothing, nothing)),
        "load shedding and pace": part(lambda: shedding(asked(), nothing, nothing)),
        "request context, told to nobody": part(lambda: silent(asked(), nothing, nothing)),
        "request context, with the next three": part(lambda: told(asked(), nothing, nothing)),
        "log line of a request": plain(lambda: log.request_done(record)),
        "metrics of a request": plain(lambda: metrics.request_done(record)),
        "dashboard's figures of a request": plain(lambda: dashboard.request_done(record)),
        "request watch": part(watched),
        "read: single flight, retries, guard": part(lambda: read("u1-0")),
        "single flight, nobody joins": part(lambda: flights.run("u1-0", nothing)),
        "retries, none needed": part(lambda: retries.run(nothing)),
        "guard: breaker, bulkhead, what is told of a call": part(lambda: guard.attempt(1, nothing)),
        "breaker, nobody listens": part(breaker(nothing)),
        "breaker, with metrics, dashboard and log": part(heard(nothing)),
        "bulkhead": part(limited),
        "fan-out of ten, each": part(lambda: fan_out(soon, keys, limit=100), each=len(keys)),
        "decode an event": plain(lambda: decode(event)),
        "encode ten events": plain(lambda: encode(events)),
    }

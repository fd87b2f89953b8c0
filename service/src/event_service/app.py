"""The composition root: settings in, ASGI app out.

It is long because things are built here and nowhere else.
"""

import asyncio
import os
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import structlog
import uuid_utils
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp

from event_service.dashboard.control_route import Terms
from event_service.dashboard.controls import breaker_controls, mock_controls
from event_service.dashboard.live import Identity, LiveFeed
from event_service.dashboard.operators import OperatorAccess, OperatorsOnly
from event_service.dashboard.orders import Orders
from event_service.dashboard.outbox_controls import outbox_controls, outbox_pages
from event_service.dashboard.page import Page, dashboard_routes
from event_service.dashboard.stream import DashboardStream
from event_service.dashboard.together import AllWorkers
from event_service.libs.board import Board
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.garbage import make_collection_rare
from event_service.libs.http_client import (
    HttpClient,
    parse_base_url,
    parse_proxy_url,
    tls_context,
)
from event_service.libs.retry import RetryBudget
from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.libs.stale_cache import StaleCache
from event_service.middleware.cache_headers import CacheHeaders
from event_service.middleware.cors import Cors
from event_service.middleware.forwarded import TrustedProxies
from event_service.middleware.load_shedding import LoadShedding
from event_service.middleware.request_context import RequestContext
from event_service.routes.deliveries import Deliveries
from event_service.routes.docs import docs_routes
from event_service.routes.events import event_routes
from event_service.routes.exact_paths import matching_exactly
from event_service.routes.home import home_routes
from event_service.routes.openapi import openapi
from event_service.routes.operations import health_routes, log_level_route, metrics_route
from event_service.routes.users import user_routes
from event_service.services.add_event import AddEvent
from event_service.services.user_events import UserEvents
from event_service.settings import (
    ConfigurationError,
    Environment,
    Settings,
    is_database,
    load_settings,
)
from event_service.signals import AdmissionBuilt, Emit, GuardsBuilt, Listener, Signals
from event_service.sources.guarded import GuardedEvents, Source, operations_of
from event_service.sources.http_events import HttpEvents, Trace
from event_service.sources.mock_admin import MockAdmin
from event_service.sources.policy import Policies, ReplyCache
from event_service.sources.upstream_check import Finding, Recorder, UpstreamCheck
from event_service.telemetry.cells import Cells, Pages
from event_service.telemetry.circuits import circuits
from event_service.telemetry.log_level import LogLevel
from event_service.telemetry.log_lines import LogLines
from event_service.telemetry.logs import Output, configure_logging
from event_service.telemetry.metrics import Metrics
from event_service.telemetry.tracing import tracing_wanted
from event_service.telemetry.vitals import Vitals
from halfopen import CircuitBreaker, FailureCount, FailureRate, TimeWindow

if TYPE_CHECKING:
    from event_service.cluster.membership import Membership
    from event_service.outbox.outbox import Outbox
    from event_service.telemetry.spans import Spans

# Waiting callers allowed for each upstream call in progress: at 500 ms a call, the last of them is
# still served within the default deadline of 5 s.
QUEUE_FACTOR = 10
# Request headers that a cross-origin page may send in addition to the CORS-safelisted ones.
CORS_HEADERS = (
    *("Content-Type", "Idempotency-Key", "Prefer"),
    *("X-Request-ID", "traceparent", "tracestate"),
)
# Both bound the cache; the size is in bytes of JSON, which take a few times as much memory.
CACHE_ENTRIES = 50_000
CACHE_SIZE = 32 * 1024 * 1024
# About 20 MB. With more clients than this, the oldest windows are forgotten, in the clients'
# favour.
RATE_WINDOWS = 100_000


@dataclass
class Lifetimes:
    """What lives as long as the app: what to open, what to close (in reverse order), and what runs
    in the background until cancelled. `enders` ask the background work to finish first.
    """

    openers: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    closers: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    enders: list[Callable[[], Awaitable[object]]] = field(default_factory=list)


@dataclass(frozen=True)
class Worker:
    """What the surrounding worker process provides to the app."""

    number: int = 1
    notice: ShutdownNotice = field(default_factory=ShutdownNotice)
    """Tells the app when the process is to end."""
    output: Output | None = None
    """Where log lines go; None: straight to standard output."""
    dropped: Callable[[], int] = lambda: 0
    """How many log lines were lost so far."""
    pages: Pages | None = None
    node: str | None = None
    """Its name in a cluster, which no other process has; None: one is made up."""
    place: int = 0
    """Where all processes of the service count, and this one's place there."""
    frames: Board | None = None
    """Where each worker shows the dashboard's figures to the others; None: there is one worker."""
    orders: Board | None = None
    """Where each worker shows what operators ordered it to do."""
    most_files: int | None = None
    """How many files may be open before connections have to wait."""
    most_calls: int | None = None
    """How many upstream calls can be under way, as each takes a file."""


def create_app(
    settings: Settings,
    *,
    source: Source | None = None,
    clock: Callable[[], float] = time.monotonic,
    listeners: Sequence[Listener] = (),
    tracing: bool = False,
    worker: Worker | None = None,
) -> ASGIApp:
    """The whole service as one ASGI app, in front of the source that the settings name.

    `source` replaces that source, under the same policies; its owner closes it. `listeners` get the
    signals that logs, metrics and the dashboard get. `tracing` sends spans to where the OTEL_*
    variables say. `worker` is the surrounding process.
    """
    worker = worker or Worker()
    notice, pages = worker.notice, worker.pages
    release = version("event-service")
    lifetimes = Lifetimes()
    signals = Signals()
    spans = build_spans(settings, version=release) if tracing else None
    trace: Trace | None = None
    cells = Cells(pages, worker.place)
    metrics = Metrics(cells, version=release)
    vitals = Vitals(cells, dropped=worker.dropped, most_files=worker.most_files)
    log_level = LogLevel(pages.word if pages is not None else None)
    lifetimes.background += [log_level.follow, vitals.watch]
    if spans is not None:
        # First, because it may replace a request's ids.
        spans.listen(signals)
        trace = spans.exchange
        lifetimes.closers.append(spans.close)
    if source is None:
        source = build_source(settings, trace=trace, lifetimes=lifetimes)
    cluster = build_cluster(settings, node=worker.node, clock=clock)
    policies = build_policies(
        settings, operations_of(source), emit=signals.emit, cluster=cluster, clock=clock
    )
    if cluster is not None:
        breakers = list(policies.breakers.values())
        lifetimes.background.append(partial(cluster.run, breakers, signals.emit))
    orders = Orders(policies.breakers, board=worker.orders, place=worker.place)
    lifetimes.background.append(orders.follow)
    feed = LiveFeed(
        identity=Identity(release, settings.env.value, settings.workers, worker.number),
        operations=list(policies.breakers),
        bulkhead=policies.bulkhead,
        budget=policies.budget,
        loop_lag=lambda: vitals.loop_lag,
        steady_lag=lambda: vitals.steady_lag,
        release_at=orders.release_at,
        clock=clock,
    )
    log_lines = LogLines(slow_request=settings.slow_request)
    heard_by: list[Listener] = [log_lines, metrics, vitals, feed, *listeners]
    for listener in heard_by:
        listener.listen(signals)
    signals.emit(GuardsBuilt(policies.breakers, policies.bulkhead, policies.budget))
    guarded = GuardedEvents(source, policies)
    # An outbox comes between this and the routes, a cluster beside the policies.
    adding = policies.breakers["addEvent"]
    outbox = build_outbox(
        settings,
        guarded,
        adding,
        signals=signals,
        cells=cells,
        lifetimes=lifetimes,
        notice=notice,
    )
    api_routes = [
        *user_routes(guarded, UserEvents(guarded)),
        *event_routes(
            guarded,
            AddEvent(guarded, new_id=_new_id),
            api_key_header=settings.api_key_header,
            deliveries=None if outbox is None else build_deliveries(outbox, adding),
        ),
    ]
    for route in api_routes:
        if isinstance(route, Route):
            feed.add_endpoint(route.path_format, route.methods or set())
    figures = AllWorkers(feed, worker.frames, place=worker.place)
    lifetimes.background.append(figures.publish)
    stream = DashboardStream(figures.newest, clock=clock)
    # Open dashboards would hold up a graceful stop.
    notice.on_leaving(stream.close)

    def expose(accept: str) -> tuple[bytes, str]:
        vitals.look()
        return metrics.expose(accept)

    ops_routes = [metrics_route(expose), log_level_route(log_level)]
    document = openapi(
        release=release,
        operations=exposes_operations(settings),
        guarded=operator_access(settings) is not None,
        api_key_header=settings.api_key_header,
        outbox=bool(settings.outbox_url),
    )
    router = Router(
        routes=matching_exactly(
            [
                *api_routes,
                *health_routes(partial(circuits, cells), notice),
                *docs_routes(document),
                *home_routes(document),
                *for_operators(ops_routes, settings),
                *build_dashboard(settings, orders, outbox, stream, lifetimes=lifetimes),
            ]
        ),
        redirect_slashes=False,
        lifespan=partial(lifespan, settings, lifetimes),
    )
    return build_edge(router, settings, signals.emit, notice, cluster=cluster, clock=clock)


def build_outbox(
    settings: Settings,
    guarded: GuardedEvents,
    circuit: CircuitBreaker,
    *,
    signals: Signals,
    cells: Cells,
    lifetimes: Lifetimes,
    notice: ShutdownNotice,
) -> "Outbox | None":
    """What keeps events for later, if the settings want an outbox."""
    if not settings.outbox_url:
        return None
    # What is not switched on is not loaded.
    from event_service import durable_writes  # noqa: PLC0415

    outbox = durable_writes.build_outbox(
        settings, guarded, circuit, signals=signals, cells=cells, new_id=_new_id
    )
    lifetimes.openers.append(outbox.open)
    lifetimes.closers.append(outbox.close)
    lifetimes.background.append(outbox.run)
    lifetimes.enders.append(outbox.end)
    notice.on_leaving(outbox.stop)
    return outbox


def build_deliveries(outbox: "Outbox", circuit: CircuitBreaker) -> Deliveries:
    """What accepts events for later delivery, if the settings ask for an outbox."""
    return Deliveries(outbox, next_try=lambda: circuit.snapshot().retry_after)


@asynccontextmanager
async def lifespan(
    settings: Settings, lifetimes: Lifetimes, _router: Router
) -> AsyncIterator[None]:
    structlog.get_logger().info(
        "service started",
        version=version("event-service"),
        pid=os.getpid(),
        settings=settings.masked(),
    )
    async with AsyncExitStack() as stack:
        for close in lifetimes.closers:
            stack.push_async_callback(close)
        for opened in lifetimes.openers:
            await opened()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for work in lifetimes.background:
            task = tasks.create_task(_in_background(work))
            stack.callback(task.cancel)
        for end in lifetimes.enders:
            stack.push_async_callback(end)
        yield
    structlog.get_logger().info("service stopped")


async def _in_background(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:  # noqa: BLE001  requests go on; the group would close what they need
        structlog.get_logger().exception("a background task failed")


def build_edge(
    router: Router,
    settings: Settings,
    emit: Emit,
    notice: ShutdownNotice,
    *,
    cluster: "Membership | None",
    clock: Callable[[], float],
) -> ASGIApp:
    """The middleware around the routes."""
    app: ASGIApp = CacheHeaders(router) if caches(settings) else router
    if settings.rate_limit:
        # What is not switched on is not loaded: this takes a tenth of the start.
        from event_service.libs.rate_counts import RateCounts  # noqa: PLC0415
        from event_service.libs.rates import parse_rates  # noqa: PLC0415
        from event_service.middleware.rate_limit import RateLimit  # noqa: PLC0415

        rates = parse_rates(settings.rate_limit)
        windows = RATE_WINDOWS // len(rates)
        alone = RateCounts(rates, max_windows=windows, clock=clock)
        app = RateLimit(
            app,
            rates=rates,
            counts=alone if cluster is None else cluster.rates(rates, max_windows=windows),
            api_key_header=settings.api_key_header,
            emit=emit,
        )
    app = shedding = LoadShedding(app, max_in_flight=settings.max_in_flight, emit=emit)
    emit(AdmissionBuilt(shedding))
    if settings.cors_origins:
        key = [settings.api_key_header] if settings.api_key_header else []
        app = Cors(app, origins=settings.cors_origins, request_headers=[*CORS_HEADERS, *key])
    app = RequestContext(
        app,
        deadline=settings.request_deadline,
        emit=emit,
        notice=notice,
        routes=router.routes,
        clock=clock,
    )
    if settings.trusted_proxies:
        app = TrustedProxies(
            app,
            [ip_network(proxy) for proxy in settings.trusted_proxies],
            header=settings.forwarded_header,
        )
    return app


def from_environment(worker: Worker) -> ASGIApp:
    """The app of a server process, with settings from the environment and logging set up."""
    settings = load_settings()
    if worker.most_calls is not None and worker.most_calls < settings.upstream_concurrency:
        settings = settings.model_copy(update={"upstream_concurrency": worker.most_calls})
    if settings.cluster_url:
        # Equal pids on several machines are common, and equal host names in containers happen.
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        worker = replace(worker, node=name)
    configure_logging(
        level=settings.log_level,
        log_format=settings.log_format,
        worker=worker.number,
        node=worker.node or "",
        output=worker.output,
    )
    app = create_app(
        settings,
        tracing=tracing_wanted(os.environ),
        worker=worker,
    )
    make_collection_rare()
    return app


def build_spans(settings: Settings, *, version: str) -> "Spans":
    # What is not switched on is not loaded.
    from event_service.telemetry.spans import Spans, build_provider  # noqa: PLC0415

    return Spans(
        build_provider(version=version), version=version, upstream_paths=settings.upstream_paths
    )


def build_source(settings: Settings, *, trace: Trace | None, lifetimes: Lifetimes) -> Source:
    """The source for the scheme of UPSTREAM_URL."""
    match settings.upstream_url.partition(":")[0]:
        case "http" | "https":
            source = build_http_events(settings, trace=trace)
            lifetimes.closers.append(source.close)
            return source
        case "sqlite" | "postgresql" | "postgres":
            # What is not used is not loaded.
            from event_service.sources.databases import build_database  # noqa: PLC0415

            database = build_database(
                settings.upstream_url,
                connections=settings.upstream_concurrency,
                timeout=settings.upstream_timeout,
            )
            lifetimes.openers.append(database.open)
            lifetimes.closers.append(database.close)
            return database
        case scheme:
            raise ConfigurationError(f"EVENT_SERVICE_UPSTREAM_URL: no source speaks {scheme}")


def build_http_events(
    settings: Settings,
    *,
    trace: Trace | None = None,
    on_body: Callable[[bytes], None] | None = None,
) -> HttpEvents:
    secrets = settings.upstream_headers
    headers = {name: secret.get_secret_value() for name, secret in secrets.items()}
    return HttpEvents(
        build_client(settings, headers),
        url=settings.upstream_url,
        paths=settings.upstream_paths,
        time_limit=settings.upstream_timeout,
        trace=trace,
        on_body=on_body,
    )


def build_client(settings: Settings, headers: Mapping[str, str]) -> HttpClient:
    """The client for the upstream. Raises ConfigurationError for files that cannot be used."""
    url = parse_base_url(settings.upstream_url)
    known = {name.lower() for name in headers}
    usual = {"accept": "application/json", "user-agent": "event-service"}
    try:
        tls = build_tls(settings) if url.scheme == "https" else None
    except ValueError as exc:
        raise ConfigurationError(f"EVENT_SERVICE_UPSTREAM_URL: {exc}") from None
    return HttpClient(
        url,
        headers={name: usual[name] for name in usual.keys() - known} | dict(headers),
        connections=settings.upstream_concurrency,
        keep_alive=settings.upstream_keep_alive,
        # Shorter than an attempt, so that the log can tell an unreachable address from a slow
        # reply.
        connect_timeout=settings.upstream_timeout / 2,
        max_body=settings.upstream_max_body,
        tls=tls,
        proxy=parse_proxy_url(settings.upstream_proxy) if settings.upstream_proxy else None,
    )


def build_tls(settings: Settings) -> ssl.SSLContext:
    return tls_context(
        ca_file=settings.upstream_ca_file,
        cert=settings.upstream_client_cert,
        key=settings.upstream_client_key,
    )


async def check_upstream(
    settings: Settings, *, user_id: str | None, event_id: str | None, write: bool
) -> list[Finding]:
    """Findings of calling each upstream operation over HTTP once, with these settings."""
    recorder = Recorder()
    source = build_http_events(settings, trace=recorder, on_body=recorder.on_body)
    try:
        check = UpstreamCheck(source, recorder, timeout=settings.upstream_timeout, new_id=_new_id)
        return await check.run(user_id=user_id, event_id=event_id, write=write)
    finally:
        await source.close()


def build_policies(
    settings: Settings,
    operations: Sequence[str],
    *,
    emit: Emit,
    cluster: "Membership | None",
    clock: Callable[[], float],
) -> Policies:
    share = settings.retry_budget
    nodes = (lambda: 1) if cluster is None else cluster.count
    return Policies(
        breakers=build_breakers(settings, operations, clock=clock),
        bulkhead=Bulkhead(
            settings.upstream_concurrency, max_waiting=QUEUE_FACTOR * settings.upstream_concurrency
        ),
        # With a ratio of 0 no retry is allowed, so there is no floor either.
        budget=RetryBudget(share, floor=10.0 if share else 0.0, nodes=nodes, clock=clock),
        emit=emit,
        attempt_timeout=settings.upstream_timeout,
        attempts=settings.retry_attempts,
        single_flight=settings.single_flight,
        cache=build_cache(settings, clock=clock),
        clock=clock,
    )


def build_cluster(
    settings: Settings, *, node: str | None, clock: Callable[[], float]
) -> "Membership | None":
    """The membership in a cluster, if the settings name one."""
    if not settings.cluster_url:
        return None
    # What is not switched on is not loaded, and may not be installed.
    from event_service.cluster.membership import Membership  # noqa: PLC0415

    return Membership(
        settings.cluster_url,
        settings.cluster_name,
        quorum=settings.cluster_quorum,
        attempt_timeout=settings.upstream_timeout,
        node=node,
        clock=clock,
    )


def build_breakers(
    settings: Settings, operations: Sequence[str], *, clock: Callable[[], float]
) -> dict[str, CircuitBreaker]:
    """A breaker for each operation: counting for writes, by failure rate for reads."""
    writes = FailureCount(settings.breaker_failures, within=settings.breaker_window)
    reads = FailureRate(0.5, over=TimeWindow(10.0), minimum_calls=20)
    return {
        operation: CircuitBreaker(
            operation,
            trip=writes if operation == "addEvent" else reads,
            cooldown=settings.breaker_cooldown,
            clock=clock,
        )
        for operation in operations
    }


def build_cache(settings: Settings, *, clock: Callable[[], float]) -> ReplyCache | None:
    """The cache of upstream replies, if the settings ask for one."""
    if not caches(settings):
        return None
    return StaleCache(
        settings.cache_ttl, settings.stale_if_error, CACHE_ENTRIES, clock, max_size=CACHE_SIZE
    )


def exposes_operations(settings: Settings) -> bool:
    """Whether operators' routes exist: in production only with a token."""
    return settings.env is not Environment.PRODUCTION or settings.ops_token is not None


def operator_access(settings: Settings) -> OperatorAccess | None:
    """The check for operators' routes; None if they are open to everybody."""
    if settings.env is not Environment.PRODUCTION or settings.ops_token is None:
        return None
    return OperatorAccess(settings.ops_token.get_secret_value())


def for_operators(routes: list[Route], settings: Settings) -> list[Route]:
    """The routes, restricted to operators as the settings ask."""
    if not exposes_operations(settings):
        return []
    access = operator_access(settings)
    for route in routes:
        route.app = OperatorsOnly(route.app, access)
    return routes


def build_dashboard(
    settings: Settings,
    orders: Orders,
    outbox: "Outbox | None",
    stream: DashboardStream,
    *,
    lifetimes: Lifetimes,
) -> list[BaseRoute]:
    if not exposes_operations(settings):
        return []
    in_production = settings.env is Environment.PRODUCTION
    access = operator_access(settings)
    may_change = settings.dashboard_controls or not in_production
    page = Page(
        breaker_controls=may_change,
        outbox_controls=may_change and outbox is not None,
        # A database has no mock.
        mock_controls=not in_production and not is_database(settings.upstream_url),
        asks=in_production,
        runbook=settings.runbook_url,
        grafana=settings.grafana_url,
        trace=settings.trace_url,
    )
    routes = dashboard_routes(page, stream, access=access)
    if page.breaker_controls:
        routes += breaker_controls(orders, Terms(access, asks=page.asks))
    if outbox is not None:
        routes += outbox_pages(outbox, access=access)
        if page.outbox_controls:
            routes += outbox_controls(outbox, Terms(access, asks=page.asks))
    if page.mock_controls:
        client = build_client(settings, headers={})
        lifetimes.closers.append(client.close)
        admin = MockAdmin(client, time_limit=settings.upstream_timeout)
        routes += mock_controls(admin, access=access)
    return routes


def caches(settings: Settings) -> bool:
    return settings.cache_ttl > 0 or settings.stale_if_error > 0


def _new_id() -> str:
    return str(uuid_utils.uuid7())

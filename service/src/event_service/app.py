"""The composition root: settings in, ASGI app out. `wiring` builds the larger parts."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version

import uuid_utils
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from event_service.dashboard.live import Identity, LiveFeed
from event_service.dashboard.orders import Orders
from event_service.dashboard.stream import DashboardStream
from event_service.dashboard.together import AllWorkers
from event_service.libs.board import Board
from event_service.libs.garbage import make_collection_rare
from event_service.libs.shutdown_notice import ShutdownNotice
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
from event_service.settings import Settings, load_settings
from event_service.signals import GuardsBuilt, Listener, Signals
from event_service.sources.guarded import GuardedEvents, Source, operations_of
from event_service.sources.http_events import Trace
from event_service.sources.upstream_check import Finding, Recorder, UpstreamCheck
from event_service.telemetry.cells import Cells, Pages
from event_service.telemetry.circuits import circuits
from event_service.telemetry.log_level import LogLevel
from event_service.telemetry.log_lines import LogLines
from event_service.telemetry.logs import Output, configure_logging
from event_service.telemetry.metrics import Metrics
from event_service.telemetry.tracing import tracing_wanted
from event_service.telemetry.vitals import Vitals
from event_service.wiring.edge import build_edge
from event_service.wiring.lifetimes import Lifetimes, lifespan
from event_service.wiring.operations import (
    build_dashboard,
    exposes_operations,
    for_operators,
    operator_access,
)
from event_service.wiring.optional import build_cluster, build_outbox, build_spans
from event_service.wiring.policies import build_policies
from event_service.wiring.sources import build_http_events, build_source


@dataclass(frozen=True)
class Worker:
    """What the surrounding worker process provides to the app."""

    number: int = 1
    notice: ShutdownNotice = field(default_factory=ShutdownNotice)
    """Tells the app when the process is to end."""
    output: Output | None = None
    """Where log lines go; None: standard output."""
    dropped: Callable[[], int] = lambda: 0
    """Number of log lines lost so far."""
    pages: Pages | None = None
    node: str | None = None
    """A name that is unique in the cluster; None: one is generated."""
    place: int = 0
    """This process's place in `pages`, where all processes keep their counters."""
    frames: Board | None = None
    """Where workers exchange the dashboard's figures; None with one worker."""
    orders: Board | None = None
    """Where workers exchange operators' orders; None with one worker."""
    most_files: int | None = None
    """Limit for open files; at the limit, new connections wait."""
    most_calls: int | None = None
    """Limit for concurrent upstream calls, because each needs a file."""


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
    same signals as logs, metrics and the dashboard. `tracing` sends spans to the collector in the
    OTEL_* variables. `worker` is the surrounding process.
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
    adding = policies.breakers["addEvent"]
    outbox = build_outbox(
        settings,
        guarded,
        adding,
        signals=signals,
        cells=cells,
        lifetimes=lifetimes,
        notice=notice,
        new_id=_new_id,
    )
    deliveries = None
    if outbox is not None:
        deliveries = Deliveries(outbox, next_try=lambda: adding.snapshot().retry_after)
    api_routes = [
        *user_routes(guarded, UserEvents(guarded)),
        *event_routes(
            guarded,
            AddEvent(guarded, new_id=_new_id),
            api_key_header=settings.api_key_header,
            deliveries=deliveries,
        ),
    ]
    for route in api_routes:
        if isinstance(route, Route):
            feed.add_endpoint(route.path_format, route.methods or set())
    figures = AllWorkers(feed, worker.frames, place=worker.place)
    lifetimes.background.append(figures.publish)
    stream = DashboardStream(figures.newest, clock=clock)
    # Otherwise open dashboards would delay a graceful stop.
    notice.on_leaving(stream.close)

    def expose(accept: str) -> tuple[bytes, str]:
        vitals.look()
        return metrics.expose(accept)

    ops_routes = [metrics_route(expose), log_level_route(log_level)]
    access = operator_access(settings, clock=clock)
    document = openapi(
        release=release,
        operations=exposes_operations(settings),
        guarded=access is not None,
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
                *for_operators(ops_routes, settings, access),
                *build_dashboard(
                    settings, orders, outbox, stream, access=access, lifetimes=lifetimes
                ),
            ]
        ),
        redirect_slashes=False,
        lifespan=partial(lifespan, settings, lifetimes),
    )
    return build_edge(router, settings, signals.emit, notice, cluster=cluster, clock=clock)


def from_environment(worker: Worker) -> ASGIApp:
    """The app of a server process, with settings from the environment and logging set up."""
    settings = load_settings()
    if worker.most_calls is not None and worker.most_calls < settings.upstream_concurrency:
        settings = settings.model_copy(update={"upstream_concurrency": worker.most_calls})
    if settings.cluster_url:
        # Neither the host name nor the pid is unique across containers and machines.
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


async def check_upstream(
    settings: Settings, *, user_id: str | None, event_id: str | None, write: bool
) -> list[Finding]:
    """Call each operation of the upstream once, with these settings, and return the findings."""
    recorder = Recorder()
    source = build_http_events(settings, trace=recorder, on_body=recorder.on_body)
    try:
        check = UpstreamCheck(source, recorder, timeout=settings.upstream_timeout, new_id=_new_id)
        return await check.run(user_id=user_id, event_id=event_id, write=write)
    finally:
        await source.close()


def _new_id() -> str:
    return str(uuid_utils.uuid7())

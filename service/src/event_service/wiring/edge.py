"""Builds the middleware around the routes."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import TYPE_CHECKING

from starlette.routing import Router
from starlette.types import ASGIApp

from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.middleware.cache_headers import CacheHeaders
from event_service.middleware.cors import Cors
from event_service.middleware.forwarded import TrustedProxies
from event_service.middleware.load_shedding import LoadShedding
from event_service.middleware.request_context import RequestContext
from event_service.settings import Settings
from event_service.signals import AdmissionBuilt, Emit
from event_service.wiring.policies import caches

if TYPE_CHECKING:
    from event_service.cluster.membership import Membership

# Request headers that a cross-origin page may send in addition to the CORS-safelisted ones.
CORS_HEADERS = (
    *("Content-Type", "Idempotency-Key", "Prefer"),
    *("X-Request-ID", "traceparent", "tracestate"),
)
# About 20 MB. With more clients than this, the oldest windows are forgotten, in the clients'
# favour.
RATE_WINDOWS = 100_000


def build_edge(
    router: Router,
    settings: Settings,
    emit: Emit,
    notice: ShutdownNotice,
    *,
    cluster: "Membership | None",
    clock: Callable[[], float],
) -> ASGIApp:
    """The app: the routes inside the middleware that the settings ask for."""
    app: ASGIApp = CacheHeaders(router) if caches(settings) else router
    if settings.rate_limit:
        # Imported only if needed: this takes a tenth of the start.
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

"""Builds the operators' routes and the dashboard, and decides who may use them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from event_service.dashboard.control_route import Terms
from event_service.dashboard.controls import breaker_controls, mock_controls
from event_service.dashboard.operators import OperatorAccess, OperatorsOnly
from event_service.dashboard.orders import Orders
from event_service.dashboard.outbox_controls import outbox_controls, outbox_pages
from event_service.dashboard.page import Page, dashboard_routes
from event_service.dashboard.stream import DashboardStream
from event_service.settings import Environment, Settings, is_database
from event_service.sources.mock_admin import MockAdmin
from event_service.wiring.lifetimes import Lifetimes
from event_service.wiring.sources import build_client

if TYPE_CHECKING:
    from event_service.outbox.outbox import Outbox


def exposes_operations(settings: Settings) -> bool:
    """Whether operators' routes exist: in production only with a token."""
    return settings.env is not Environment.PRODUCTION or settings.ops_token is not None


def operator_access(settings: Settings, *, clock: Callable[[], float]) -> OperatorAccess | None:
    """The check for operators' routes; None if they are open to everybody.

    All routes share one, or each of them could be used for more guesses at the token.
    """
    if settings.env is not Environment.PRODUCTION or settings.ops_token is None:
        return None
    return OperatorAccess(settings.ops_token.get_secret_value(), clock=clock)


def for_operators(
    routes: list[Route], settings: Settings, access: OperatorAccess | None
) -> list[Route]:
    """The routes, for operators only as the settings ask; [] if they must not exist."""
    if not exposes_operations(settings):
        return []
    for route in routes:
        route.app = OperatorsOnly(route.app, access)
    return routes


def build_dashboard(
    settings: Settings,
    orders: Orders,
    outbox: "Outbox | None",
    stream: DashboardStream,
    *,
    access: OperatorAccess | None,
    lifetimes: Lifetimes,
) -> list[BaseRoute]:
    if not exposes_operations(settings):
        return []
    in_production = settings.env is Environment.PRODUCTION
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

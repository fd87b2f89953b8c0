"""Builds the parts that are off by default. Each is imported only if the settings switch it on."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.settings import Settings
from event_service.signals import Signals
from event_service.sources.guarded import GuardedEvents
from event_service.telemetry.cells import Cells
from event_service.wiring.lifetimes import Lifetimes
from halfopen import CircuitBreaker

if TYPE_CHECKING:
    from event_service.cluster.membership import Membership
    from event_service.outbox.outbox import Outbox
    from event_service.telemetry.spans import Spans


def build_outbox(
    settings: Settings,
    guarded: GuardedEvents,
    circuit: CircuitBreaker,
    *,
    signals: Signals,
    cells: Cells,
    lifetimes: Lifetimes,
    notice: ShutdownNotice,
    new_id: Callable[[], str],
) -> "Outbox | None":
    """The outbox, if the settings name one."""
    if not settings.outbox_url:
        return None
    from event_service.wiring import durable_writes  # noqa: PLC0415

    outbox = durable_writes.build_outbox(
        settings, guarded, circuit, signals=signals, cells=cells, new_id=new_id
    )
    lifetimes.openers.append(outbox.open)
    lifetimes.closers.append(outbox.close)
    lifetimes.background.append(outbox.run)
    lifetimes.enders.append(outbox.end)
    notice.on_leaving(outbox.stop)
    return outbox


def build_cluster(
    settings: Settings, *, node: str | None, clock: Callable[[], float]
) -> "Membership | None":
    """The membership in a cluster, if the settings name one."""
    if not settings.cluster_url:
        return None
    from event_service.cluster.membership import Membership  # noqa: PLC0415

    return Membership(
        settings.cluster_url,
        settings.cluster_name,
        quorum=settings.cluster_quorum,
        attempt_timeout=settings.upstream_timeout,
        node=node,
        clock=clock,
    )


def build_spans(settings: Settings, *, version: str) -> "Spans":
    from event_service.telemetry.spans import Spans, build_provider  # noqa: PLC0415

    return Spans(
        build_provider(version=version), version=version, upstream_paths=settings.upstream_paths
    )

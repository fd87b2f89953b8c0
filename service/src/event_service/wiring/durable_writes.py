"""Builds the outbox, if the settings ask for one."""

import random
from collections.abc import Callable

from event_service import context
from event_service.libs.sqlite import path_of
from event_service.outbox.courier import Courier
from event_service.outbox.outbox import Outbox
from event_service.outbox.pacing import MOST_LANES, Rests, Window
from event_service.outbox.relay import Relay
from event_service.outbox.sender import Sender, Sink
from event_service.outbox.sqlite_store import SqliteStore
from event_service.outbox.store import LEASE, Store
from event_service.problems import problem_for
from event_service.settings import ConfigurationError, Settings
from event_service.signals import Signals
from event_service.telemetry.cells import Cells
from event_service.telemetry.outbox_lines import OutboxLines
from event_service.telemetry.outbox_metrics import OutboxMetrics
from halfopen import CircuitBreaker, State


def build_store(settings: Settings) -> Store:
    """The database that OUTBOX_URL names by its scheme. Raises ConfigurationError."""
    url, limit, give_up = settings.outbox_url, settings.outbox_limit, settings.outbox_give_up
    lease = lease_of(settings)
    if url.startswith("sqlite:"):
        return SqliteStore(path_of(url), limit=limit, give_up=give_up, lease=lease)
    try:
        from event_service.outbox.postgres_store import PostgresStore  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "EVENT_SERVICE_OUTBOX_URL: PostgreSQL needs pip install 'event-service[postgres]'"
        ) from None
    return PostgresStore(url, limit=limit, give_up=give_up, lease=lease)


def lease_of(settings: Settings) -> float:
    """Seconds for which one worker owns a user's events: at least twice an attempt's limit."""
    return max(LEASE, 2.5 * settings.upstream_timeout)


def build_outbox(
    settings: Settings,
    sink: Sink,
    circuit: CircuitBreaker,
    *,
    signals: Signals,
    cells: Cells,
    new_id: Callable[[], str],
) -> Outbox:
    """The outbox. Events are delivered to `sink` while the circuit admits calls."""
    for listener in (OutboxLines(), OutboxMetrics(cells)):
        listener.listen(signals)
    window = Window(min(MOST_LANES, max(1, settings.upstream_concurrency // 2)))
    rests = Rests(window=settings.breaker_window, random=random.random)
    store, lease = build_store(settings), lease_of(settings)
    # The wait for a free slot is at most as long as another attempt would take.
    attempt_limit = 2 * settings.upstream_timeout
    courier = Courier(
        Sender(sink, new_id=new_id, emit=signals.emit).send,
        circuit,
        window=window,
        rests=rests,
        describe=_describe,
        attempt_limit=attempt_limit,
    )
    relay = Relay(
        store,
        courier,
        circuit,
        # Identifies the lane's owner: a restarted process is a new one.
        owner=new_id(),
        window=window,
        rests=rests,
        attempt_limit=attempt_limit,
        emit=signals.emit,
        lease=lease,
    )
    return Outbox(
        store,
        relay,
        keep=settings.outbox_keep,
        may_write=lambda: circuit.state is State.CLOSED,
        emit=signals.emit,
    )


def _describe(delivery_id: str, error: Exception) -> bytes:
    """The problem of a delivery as JSON, as clients and operators see it."""
    call = context.current.get()
    return problem_for(error).body(
        instance=f"/api/addEvent/{delivery_id}", request_id="" if call is None else call.request_id
    )

"""The unchanged service in a process that kills itself at one point of a delivery.

Run by `torture.crashes`: python -m torture.victim POINT PORT, with EVENT_SERVICE_* variables.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from event_service.app import create_app
from event_service.libs.sqlite import path_of
from event_service.models import NewEvent
from event_service.outbox.records import Accepted, Claim, NewDelivery
from event_service.outbox.sqlite_store import SqliteStore
from event_service.outbox.store import Store
from event_service.settings import Settings, load_settings
from event_service.sources.http_events import HttpEvents
from event_service.telemetry.logs import configure_logging
from event_service.wiring import durable_writes
from event_service.wiring.sources import build_http_events
from torture.fault_vfs import Disk, FaultVFS, Operation

POINTS = ("before-commit", "after-commit", "after-202", "claimed", "sent", "answered")
# Seconds. Short, so that others soon take over the lanes of a killed worker.
LEASE = 1.0


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class DyingStore:
    """A store that passes everything on until its point is reached."""

    def __init__(self, store: Store, point: str) -> None:
        self._store = store
        self._point = point
        self.accepting = False
        self.vfs: object = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def accept(self, entries: Sequence[NewDelivery]) -> list[Accepted | Exception]:
        self.accepting = True
        results = await self._store.accept(entries)
        if self._point == "after-commit":
            die()
        return results

    async def claim(self, owner: str, limit: int) -> list[Claim]:
        claims = await self._store.claim(owner, limit)
        if claims and self._point == "claimed":
            die()
        return claims


class DyingSource:
    """The events API until a write was answered."""

    def __init__(self, source: HttpEvents, point: str) -> None:
        self._source = source
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        stored_as = await self._source.add_event(
            event, event_id=event_id, idempotency_key=idempotency_key
        )
        if self._point == "answered":
            die()
        return stored_as


class DyingApp:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def sent(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message.get("status") == 202
            await send(message)
            if accepted and message["type"] == "http.response.body":
                # Later, so that the bytes leave the process first.
                asyncio.get_running_loop().call_later(0.02, die)

        await self._app(scope, receive, sent)


def build_store(settings: Settings, point: str) -> Any:
    url = settings.outbox_url
    if not url.startswith("sqlite:"):
        dying = DyingStore(_build_store(settings), point)
        if point == "before-commit":
            _die_before_commit(dying)
        return dying
    store = SqliteStore(
        path_of(url), limit=10**6, give_up=1e6, lease=LEASE, vfs="dying", clock=time.time
    )
    dying = DyingStore(store, point)
    disk = Disk(simulated=False)
    # Keep a reference: otherwise SQLite would lose the VFS.
    dying.vfs = FaultVFS("dying", disk)

    def before(operation: Operation, path: Path) -> None:
        # The transaction is in the log, but not synced.
        if operation == "sync" and path.name.endswith("-wal") and dying.accepting:
            die()

    if point == "before-commit":
        disk.before = before
    return dying


def _die_before_commit(dying: DyingStore) -> None:
    """Die when PostgreSQL has the whole transaction except its COMMIT."""
    import psycopg  # noqa: PLC0415

    end = psycopg.AsyncTransaction.__aexit__

    async def die_or_end(self: Any, *error: Any) -> bool:
        if dying.accepting:
            die()
        return bool(await end(self, *error))

    psycopg.AsyncTransaction.__aexit__ = die_or_end  # type: ignore[assignment,method-assign]


_build_store = durable_writes.build_store


async def main(point: str, port: int) -> None:
    settings = load_settings()
    configure_logging(level=settings.log_level, log_format="json")
    durable_writes.lease_of = lambda settings: LEASE  # noqa: ARG005
    durable_writes.build_store = lambda settings: build_store(settings, point)
    source: Any = DyingSource(build_http_events(settings), point)
    app = create_app(settings, source=source)
    server = Server(
        DyingApp(app) if point == "after-202" else app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )
    await server.serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

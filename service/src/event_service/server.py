"""What `serve` does to a process: its workers, its signals, what they share."""

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil

from event_service.libs.garbage import make_collection_rare
from event_service.settings import WORKERS_DIR, Settings
from event_service.telemetry.logs import configure_logging

# A client that takes longer over its headers is cut off.
HEADER_READ_TIMEOUT_MS = 10_000
BACKLOG = 4096
MAX_CONNECTIONS = 65_535


def run(settings: Settings) -> None:
    """Serve until a signal ends it. The address must be free."""
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    # The upstream client's allocator would take huge pages where few small ones do: a tenth of an
    # idle service's memory.
    os.environ.setdefault("MIMALLOC_ALLOW_THP", "0")
    # Loading the server takes a while that a refused configuration need not wait for.
    if sys.platform == "linux":
        # What is loaded before they are forked, workers share: 10 MB less in all.
        multiprocessing.set_start_method("fork", force=True)
        import event_service.app  # noqa: F401, PLC0415

        make_collection_rare()
    from granian import Granian  # noqa: PLC0415
    from granian.constants import HTTPModes, Interfaces, Loops  # noqa: PLC0415
    from granian.http import HTTP1Settings  # noqa: PLC0415
    from granian.log import LogLevels  # noqa: PLC0415

    server = Granian(
        "event_service.app:from_environment",
        factory=True,
        interface=Interfaces.ASGI,
        address=_address(settings.host),
        port=settings.port,
        workers=settings.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_TIMEOUT_MS),
        backlog=BACKLOG,
        # Granian's own limit would leave connections waiting unanswered; load shedding answers.
        backpressure=MAX_CONNECTIONS,
        respawn_failed_workers=True,
        workers_kill_timeout=ceil(settings.request_deadline) + 1,
        log_level=LogLevels.warning,
        log_dictconfig={"loggers": {"_granian": {"propagate": True}}},
    )
    _let_threads_finish()
    with _shared_among(settings.workers):
        server.serve()


def _let_threads_finish() -> None:
    """Have the threads of workers to come not interrupt each other (ADR 12)."""
    if sys.platform == "linux":
        # Where that is forbidden all goes on as before, at less speed.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@contextmanager
def _shared_among(workers: int) -> Iterator[None]:
    """A folder of their own for the workers to meet in, if there are several."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="event-service-") as folder:
        os.environ[WORKERS_DIR] = folder
        yield


def _address(host: str) -> str:
    """The host's address: the server takes no names."""
    return host if ":" in host else socket.gethostbyname(host)

"""What `serve` does to a process: the port, its workers, their start and their end."""

import asyncio
import fcntl
import os
import signal
import socket
import stat
import struct
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server as Granian
from starlette.types import ASGIApp

from event_service.app import Worker, from_environment
from event_service.dashboard import orders, together
from event_service.libs import open_files
from event_service.libs.board import Board
from event_service.libs.garbage import make_collection_rare
from event_service.libs.line_writer import LineWriter
from event_service.libs.listener import BACKLOG, Listener, take_no_more, waiting
from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.libs.supervisor import DROP, Ask, Link, Supervisor
from event_service.settings import Settings
from event_service.telemetry.cells import Pages
from event_service.telemetry.exposition import lasts
from event_service.telemetry.logs import configure_logging, lost_lines

# Seconds for which an ending worker still accepts connections.
LINGER = 0.1
# Seconds for which it then accepts those already in its queue, when nobody else can enter it.
LAST_CALL = 0.05
# Seconds before a connection without a request is cut off.
GRACE = 1.0
# Seconds for closing what the app has open.
TIDY_UP = 2.0
POLL = 0.02
SERVERS_OWN_FILES = 12
INTERNET = {socket.AF_INET, socket.AF_INET6}


class _Shared(NamedTuple):
    """Memory shared by the server and all its workers: counts, dashboard figures, operators'
    orders.
    """

    pages: Pages
    frames: Board
    orders: Board


def run(settings: Settings, listener: Listener) -> int:
    """Serve until a signal ends it; returns the exit code."""
    output = _Output()
    _log_to(output, settings, 0)
    # Modules loaded before the fork are shared by the workers: 10 MB less in all.
    make_collection_rare()
    open_files.raise_limit()
    _let_threads_finish()
    patience = settings.request_deadline + settings.drain + LINGER + GRACE + TIDY_UP
    # A reload doubles the number of workers while the old ones end.
    places = 4 * settings.workers + 4
    shared = _Shared(
        Pages(places, lasting=lasts),
        Board(places, size=together.SIZE),
        Board(places, size=orders.SIZE),
    )
    code = Supervisor(
        partial(work, settings, listener, output, shared),
        count=settings.workers,
        patience=patience,
        events=_Told(listener, shared),
    ).run()
    output.writer.close()
    return code


def work(
    settings: Settings,
    listener: Listener,
    output: "_Output",
    shared: _Shared,
    number: int,
    place: int,
    link: Link,
) -> None:
    """The whole life of a worker process."""
    output.begin_anew()
    _log_to(output, settings, number)
    try:
        queue = listener.keep(number)
        # The server's own threads and queues need about as many files as are open now.
        used = open_files.open_now() + SERVERS_OWN_FILES
        shares = open_files.share_out(
            open_files.limit(), used=used, calls=settings.upstream_concurrency
        )
        worker = Worker(
            number,
            output=output.writer,
            dropped=lambda: output.writer.dropped,
            pages=shared.pages,
            frames=shared.frames if settings.workers > 1 else None,
            orders=shared.orders if settings.workers > 1 else None,
            place=place,
            most_files=used + shares.connections,
            most_calls=shares.calls,
        )
        app = from_environment(worker)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(app, settings, queue, worker.notice, link, shares.connections))
    except Exception:  # noqa: BLE001  whatever it is, the log says so
        structlog.get_logger().critical("worker failed", worker=number, exc_info=True)
        sys.exit(1)
    finally:
        output.writer.close()


async def _serve(
    app: ASGIApp,
    settings: Settings,
    queue: socket.socket,
    notice: ShutdownNotice,
    link: Link,
    connections: int,
) -> None:
    end = asyncio.get_running_loop().create_future()
    port = queue.getsockname()[1]
    async with _lifespan(app):
        server = _Server(app, queue, keep_alive=settings.keep_alive, connections=connections)
        serving = asyncio.create_task(server.serve())
        with _asked(end, link):
            link.serving()
            await asyncio.wait([end, serving], return_when=asyncio.FIRST_COMPLETED)
            linger = LINGER
            if end.done() and end.result() is Ask.STOP:
                notice.stop()
                linger += settings.drain
            notice.leave()
            await asyncio.wait([serving], timeout=linger)
            if notice.stopping:
                take_no_more(queue)
                await asyncio.wait([serving], timeout=LAST_CALL)
        server.stop()  # type: ignore[no-untyped-call]
        queue.close()
        await _until_answered(serving, notice, port=port)


async def _until_answered(
    serving: asyncio.Task[None], notice: ShutdownNotice, *, port: int
) -> None:
    """Wait until every request is answered, then give other connections GRACE seconds.

    Granian itself would wait for every connection, even one that sent half a request.
    """
    left = GRACE
    while left > 0 and not serving.done():
        await asyncio.wait([serving], timeout=POLL)
        left = GRACE if notice.in_flight or _is_sending(port) else left - POLL


def _is_sending(port: int) -> bool:
    """Whether a client connection of ours still has unsent data."""
    if sys.platform != "linux":
        return False
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not stat.S_ISSOCK(path.stat().st_mode):
                continue
            with socket.socket(fileno=os.dup(int(path.name))) as found:
                is_ours = found.family in INTERNET and found.getsockname()[1] == port
                if is_ours and _unsent(found):
                    return True
    return False


def _unsent(connection: socket.socket) -> int:
    connection.getpeername()
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(count)


@contextmanager
def _asked(end: asyncio.Future[Ask], link: Link) -> Iterator[None]:
    """Sets `end` to what the supervisor, or SIGTERM, asks of this worker."""
    loop = asyncio.get_running_loop()

    def ask(what: Ask) -> None:
        if not end.done():
            end.set_result(what)

    def hear() -> None:
        loop.remove_reader(link.fileno())
        ask(link.asked())

    loop.add_reader(link.fileno(), hear)
    for number in (signal.SIGTERM, DROP):
        loop.add_signal_handler(number, ask, Ask.STOP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    yield
    loop.remove_reader(link.fileno())


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Runs the app's startup and shutdown. Raises what either raises."""
    events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    done: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.ensure_future(app(scope, events.get, done.put))

    async def event(name: str) -> None:
        events.put_nowait({"type": f"lifespan.{name}"})
        told = asyncio.ensure_future(done.get())
        await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
        if told.done() and told.result()["type"] == f"lifespan.{name}.complete":
            return
        told.cancel()
        await running
        raise RuntimeError(f"the app's {name} failed")

    await event("startup")
    try:
        yield
    finally:
        await event("shutdown")


class _Server(Granian):
    """Serves the app on an already listening socket, in this process and its event loop."""

    def __init__(
        self, app: ASGIApp, queue: socket.socket, *, keep_alive: float, connections: int
    ) -> None:
        self._queue = queue
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            # Granian's only limit on how long a request's head may take.
            http1_settings=HTTP1Settings(header_read_timeout=round(1000 * keep_alive)),
            # Further connections wait. Load shedding could answer them, but a server without free
            # file descriptors retries accepting in a busy loop.
            backpressure=connections,
            backlog=BACKLOG,
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        # Granian closes the descriptor it is given.
        descriptor = os.dup(self._queue.fileno())
        self._shd = SocketHolder(descriptor, False, BACKLOG)  # type: ignore[assignment, call-arg]


class _Told:
    """Logs what happens to workers."""

    def __init__(self, listener: Listener, shared: _Shared) -> None:
        self._listener = listener
        self._shared = shared

    def ended(self, worker: int, code: int) -> None:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        structlog.get_logger().error("worker ended by itself", worker=worker, how=how)

    def killed(self, worker: int) -> None:
        structlog.get_logger().error("worker killed: it did not end in time", worker=worker)

    def not_replaced(self, worker: int) -> None:
        structlog.get_logger().error("reload given up: a new worker did not start", worker=worker)

    def given_up(self) -> None:
        structlog.get_logger().critical("service ended: its workers do not run")

    def may_be_dropped(self, worker: int) -> bool:
        queue = self._listener.queue(worker)
        take_no_more(queue)
        return waiting(queue) == 0

    def gone(self, place: int) -> None:
        self._shared.pages.fold(place)
        self._shared.frames.put(place, b"")
        # Its orders stay valid for the others; the next worker in this place takes them over.

    def stopping(self) -> None:
        # From here on only workers hold the port open.
        self._listener.close()


def _log_to(output: "_Output", settings: Settings, worker: int) -> None:
    configure_logging(
        level=settings.log_level,
        log_format=settings.log_format,
        worker=worker,
        output=output.writer,
    )


class _Output:
    """Standard output, shared by all processes of one service."""

    def __init__(self) -> None:
        self._descriptor = sys.stdout.fileno()
        # A file lock is released when its process is killed; a semaphore is not.
        self._lock = _file_without_a_name()
        # Threads do not survive a fork, so none may be running then.
        self.writer = self._new(idle=0)

    def begin_anew(self) -> None:
        """Start writing in a new process, after a fork."""
        self.writer = self._new(idle=10)

    def _new(self, *, idle: float) -> LineWriter:
        return LineWriter(self._descriptor, lost=lost_lines, lock=self._lock, idle=idle)


def _file_without_a_name() -> int:
    in_memory = getattr(os, "memfd_create", None)
    if in_memory is not None:
        return int(in_memory("event-service"))
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _let_threads_finish() -> None:
    """Stop worker threads from preempting each other (ADR 12)."""
    if sys.platform == "linux":
        # Without permission the service runs all the same, a little slower.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

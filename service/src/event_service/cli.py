"""`event-service serve | dev | check-config`."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from math import ceil
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

import typer

from event_service.libs.garbage import make_collection_rare
from event_service.settings import (
    WORKERS_DIR,
    ConfigurationError,
    Environment,
    Settings,
    load_settings,
)
from event_service.telemetry.logs import configure_logging
from event_service.telemetry.tracing import TracingUnavailable, tracing_wanted

# A client that takes longer over its headers is cut off.
HEADER_READ_TIMEOUT_MS = 10_000
BACKLOG = 4096
MAX_CONNECTIONS = 65_535

main = typer.Typer(
    help="A fast, dependable service in front of a slow, fragile events API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@main.command()
def serve() -> None:
    """Run the service. EVENT_SERVICE_* variables configure it; SIGTERM ends it gracefully."""
    settings = _settings()
    _require_free(settings.host, settings.port, "choose another with EVENT_SERVICE_PORT")
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


@main.command("check-config")
def check_config() -> None:
    """Print the effective settings with secrets masked; exit with 2 if any is wrong."""
    for name, value in _settings().masked().items():
        text = value if isinstance(value, str) else json.dumps(value)
        typer.echo(f"{name}={text}")


@main.command()
def dev() -> None:
    """Run the mock upstream and the service together until Ctrl-C."""
    settings = _settings()
    if settings.env is not Environment.DEVELOPMENT:
        _fail(f"`dev` is for development; EVENT_SERVICE_ENV is {settings.env.value}", code=2)
    if find_spec("mock_upstream") is None:
        _fail("`dev` runs the mock upstream, too: pip install 'event-service[dev]'", code=1)
    upstream = urlsplit(settings.upstream_url)
    host, port = upstream.hostname or "", upstream.port or 80
    _require_free(host, port, "choose another with EVENT_SERVICE_UPSTREAM_URL")
    _require_free(settings.host, settings.port, "choose another with EVENT_SERVICE_PORT")
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        with (
            _child("mock_upstream", "--host", host, "--port", str(port)) as mock,
            _child("event_service", "serve") as service,
        ):
            _wait_until_listening(service, settings.host, settings.port)
            typer.echo(_greeting(settings))
            ended, _ = os.wait()
            name = {mock.pid: "the mock upstream", service.pid: "the service"}[ended]
            _fail(f"{name} ended by itself; its last lines above say why", code=1)
    except KeyboardInterrupt:
        typer.echo("\nstopped")


def _greeting(settings: Settings) -> str:
    base = f"http://{settings.host}:{settings.port}"
    add = """-H 'content-type: application/json' -d '{"userId":"1","title":"Standup"}'"""
    return f"""
The event service listens on {base}, the mock upstream on {settings.upstream_url}.
Try (Ctrl-C stops both):

  curl {base}/api/getUsers
  curl {base}/api/getEvents
  curl {base}/api/getEventsByUserId/1
  curl {base}/api/addEvent {add}

The mock accepts 5 new events, then refuses 10: the third refusal opens the circuit.
"""


def _wait_until_listening(child: subprocess.Popen[bytes], host: str, port: int) -> None:
    while child.poll() is None:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    _fail("the service did not start; its last lines above say why", code=1)


def _raise_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _settings() -> Settings:
    try:
        settings = load_settings()
        tracing_wanted(os.environ)
    except (ConfigurationError, TracingUnavailable) as error:
        _fail(str(error), code=2)
    return settings


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


def _require_free(host: str, port: int, otherwise: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _fail(f"Cannot listen on {host} port {port} ({error.strerror}); {otherwise}.", code=1)


def _address(host: str) -> str:
    """The host's address: the server takes no names."""
    return host if ":" in host else socket.gethostbyname(host)


@contextmanager
def _child(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C reaches us alone, and we stop our children in order.
    with subprocess.Popen(  # noqa: S603  our own modules under our own interpreter
        [sys.executable, "-m", module, *arguments], start_new_session=True
    ) as child:
        try:
            yield child
        finally:
            child.terminate()
            child.wait()

"""`event-service serve | dev | check-config`."""

import os
import signal
import sys

if sys.argv[1:2] in (["serve"], ["dev"]):
    # These load for a while, in which nothing is under way: a signal ends them without a word.
    # They hear signals their own way later. This stands here as all that follows takes its time.
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

import http.client
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

import typer

from event_service.libs.listener import CannotListen, Listener
from event_service.settings import (
    ConfigurationError,
    Environment,
    Settings,
    load_settings,
)

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
    # Before all else that takes time: of two that start at once, one learns it here.
    listener = _listen(settings.host, settings.port, "EVENT_SERVICE_PORT", count=settings.workers)
    # The upstream client's allocator would take huge pages where few small ones do: a tenth of an
    # idle service's memory. It looks when it is loaded.
    os.environ.setdefault("MIMALLOC_ALLOW_THP", "0")
    from event_service import server  # noqa: PLC0415  who cannot listen need not wait for it

    sys.exit(server.run(settings, listener))


@main.command("check-config")
def check_config() -> None:
    """Print the effective settings with secrets masked; exit with 2 if any is wrong."""
    for line in _settings().env_lines():
        typer.echo(line)


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
    _listen(host, port, "EVENT_SERVICE_UPSTREAM_URL").close()
    _listen(settings.host, settings.port, "EVENT_SERVICE_PORT").close()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _raise_interrupt)
        with (
            _child("mock_upstream", "--host", host, "--port", str(port)) as mock,
            _child("event_service", "serve") as service,
        ):
            _wait_until_it_answers(service, settings.host, settings.port)
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


def _wait_until_it_answers(child: subprocess.Popen[bytes], host: str, port: int) -> None:
    while child.poll() is None:
        connection = http.client.HTTPConnection(host, port, timeout=1)
        try:
            connection.request("GET", "/livez")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    _fail("the service did not start; its last lines above say why", code=1)


def _raise_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: nothing may interrupt the end of our children.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def _settings() -> Settings:
    try:
        return load_settings(on_note=partial(typer.echo, err=True))
    except ConfigurationError as error:
        _fail(str(error), code=2)


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


def _listen(host: str, port: int, variable: str, *, count: int = 1) -> Listener:
    try:
        return Listener(host, port, count=count)
    except CannotListen as error:
        other = f"; choose another with {variable}" if error.port_is_at_fault else ""
        _fail(f"{error}{other}.", code=1)


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

"""`event-service dev`: the service, restarted when its source changes, and a mock upstream."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Self

import typer
from watchfiles import watch

import halfopen
from event_service.libs.http_client import parse_base_url
from event_service.settings import PREFIX, Settings, is_database

SOURCES = [Path(__file__).parent, Path(halfopen.__file__).parent]
FOLDER = Path(".event-service")
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  shown, not listened on
# SIGHUP is sent when the terminal is closed.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # Linux's number
_libc = ctypes.CDLL(None)
# Milliseconds between two checks of the child processes.
GLANCE = 250
# The mock's outage, in cooldowns. Above one, so that there is time to type the three refused
# requests by hand; below two, so that the first or second canary closes the circuit.
OUTAGE = 1.2
ADD = r"""\
    -H 'content-type: application/json' -d '{"userId":"1","title":"Standup"}'"""


def wants_mock(settings: Settings) -> bool:
    """Whether to start the mock: no upstream is set, or nothing listens at its loopback address."""
    if "upstream_url" not in settings.model_fields_set:
        return True
    if not settings.upstream_url.startswith("http://"):
        return False
    url = parse_base_url(settings.upstream_url)
    return url.host in LOOPBACK and not url.path and not _is_served(url.host, url.port)


def _is_served(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def run(settings: Settings, *, mocked: bool) -> int:
    """Run the service, with the mock if `mocked`, until a signal. Returns the exit code."""
    typer.echo(_addresses(settings, mocked=mocked))
    asked = _AskedToEnd()
    with ExitStack() as stack:
        mock = stack.enter_context(_mock(settings)) if mocked else None
        environ = {**os.environ, **_outbox(settings)}
        service = stack.enter_context(Restartable("event_service", "serve", environ=environ))
        code = _run(settings, service, mock, asked)
    asked.ignore()
    if code == 0:
        with suppress(OSError):  # the terminal may be gone
            typer.echo("\nstopped")
    return code


def _run(
    settings: Settings,
    service: "Restartable",
    mock: subprocess.Popen[bytes] | None,
    asked: "_AskedToEnd",
) -> int:
    if _answers(service, settings, asked):
        if mock is not None:
            _wait_until_it_listens(mock, settings, asked)
        typer.echo(_hints(settings, mocked=mock is not None))
        return _watch(service, mock, asked)
    if asked.is_set():
        return 0
    typer.echo("the service did not start; its last lines above say why", err=True)
    return 1


class _AskedToEnd:
    """Whether a signal came. The signal only sets a flag, so that no starting child gets lost.

    It is not an Event, because that has a lock: a signal may arrive while another is handled.
    """

    def __init__(self) -> None:
        self._came = False
        for number in ENDS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._come)

    def is_set(self) -> bool:
        return self._came

    def ignore(self) -> None:
        """Ignore further signals: at exit Python removes its handlers, and a signal would kill."""
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)

    def _come(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True


def _watch(service: "Restartable", mock: subprocess.Popen[bytes] | None, asked: _AskedToEnd) -> int:
    restarted = told = False
    for changes in watch(
        *SOURCES, stop_event=asked, rust_timeout=GLANCE, yield_on_timeout=True, debounce=400
    ):
        if mock is not None and mock.poll() is not None:
            typer.echo("the mock upstream ended by itself; its last lines above say why", err=True)
            return 1
        if changes:
            names = ", ".join(sorted({Path(path).name for _, path in changes}))
            typer.echo(f"{names} changed: the service restarts")
            service.restart()
            restarted, told = True, False
        elif service.ended and not restarted:
            typer.echo("the service ended by itself; its last lines above say why", err=True)
            return 1
        elif service.ended and not told:
            typer.echo(
                "the service does not run; the next change of its source starts it", err=True
            )
            told = True
    return 0


class Restartable:
    """A context manager that runs one of our modules as a child process."""

    def __init__(self, module: str, *arguments: str, environ: Mapping[str, str]) -> None:
        self._command = (module, *arguments)
        self._environ = environ
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._process = self._stack.enter_context(_child(*self._command, environ=self._environ))
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def restart(self) -> None:
        self.__exit__()
        self.__enter__()


def _outbox(settings: Settings) -> dict[str, str]:
    """The variable for an outbox, unless the settings name one. Each upstream has its own outbox,
    so that no upstream gets events meant for another. Git ignores the outbox's folder.
    """
    variable = f"{PREFIX}OUTBOX_URL"
    if settings.outbox_url or variable in os.environ or is_database(settings.upstream_url):
        return {}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    url = parse_base_url(settings.upstream_url)
    name = re.sub(r"[^a-z0-9.-]", "_", f"{url.host.lower()}-{url.port}{url.path}")
    return {variable: f"sqlite:///{FOLDER}/outbox-{name}.db"}


def _mock(settings: Settings) -> AbstractContextManager[subprocess.Popen[bytes]]:
    url = parse_base_url(settings.upstream_url)
    outage = OUTAGE * settings.breaker_cooldown
    options = ("--host", url.host, "--port", str(url.port), "--outage", f"{outage:g}")
    return _child("mock_upstream", *options)


@contextmanager
def _child(
    module: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    # In a new session, so that Ctrl-C reaches only us, and we stop our children in order.
    with subprocess.Popen(  # noqa: S603  our own modules under our own interpreter
        [sys.executable, "-m", module, *arguments],
        env=environ,
        start_new_session=True,
        preexec_fn=_end_with_parent,  # noqa: PLW1509  it makes one call to the system
    ) as child:
        try:
            yield child
        finally:
            child.terminate()
            child.wait()


def _end_with_parent() -> None:
    """Let the kernel end this process if its parent is killed; works only on Linux."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _answers(service: Restartable, settings: Settings, asked: _AskedToEnd) -> bool:
    """Wait until the service answers. False if it ended, or if a signal came first."""
    while not service.ended and not asked.is_set():
        with suppress(OSError), socket.create_connection(_address(settings), timeout=1) as server:
            # The server refuses this itself. A request would be in the log, as the user's first.
            server.sendall(b"?\r\n\r\n")
            if server.recv(1):
                return True
        time.sleep(0.05)
    return False


def _wait_until_it_listens(
    mock: subprocess.Popen[bytes], settings: Settings, asked: _AskedToEnd
) -> None:
    """Or until it ended, or a signal came. What the hints say to try would fail before that."""
    url = parse_base_url(settings.upstream_url)
    while mock.poll() is None and not asked.is_set():
        with suppress(OSError), socket.create_connection((url.host, url.port), timeout=1):
            return
        time.sleep(0.05)


def _address(settings: Settings) -> tuple[str, int]:
    return _reachable(settings), settings.port


def _addresses(settings: Settings, *, mocked: bool) -> str:
    base = _base(settings)
    upstream = "the mock of its upstream" if mocked else "its upstream, as you have set it"
    rows = [
        (base, "the service"),
        (f"{base}/dashboard", "what goes on, live"),
        (f"{base}/docs", "the API, to read and to try"),
        (settings.masked()["EVENT_SERVICE_UPSTREAM_URL"], upstream),
    ]
    width = max(len(address) for address, _ in rows)
    lines = [f"  {address:{width}}  {text}" for address, text in rows]
    return "\n".join([f"Event Service {version('event-service')}", "", *lines, ""])


def _hints(settings: Settings, *, mocked: bool) -> str:
    base = _base(settings)
    cooldown, failures = f"{settings.breaker_cooldown:g}", settings.breaker_failures
    outage = f"{OUTAGE * settings.breaker_cooldown:g}"
    story = f"""
The mock accepts 5 new events, then it is down for {outage} s. Its refusal number {failures} opens
the circuit: the service answers at once, without a call. After {cooldown} s one call is let
through, the canary; the first or the second canary closes the circuit again.
"""
    durable = f"""
While addEvent's circuit is open, hand in an event for later, and follow its Location:

  curl -i {base}/api/addEvent -H 'prefer: respond-async' {ADD}
"""
    if is_database(settings.upstream_url):
        durable = ""
    return f"""
Try (Ctrl-C stops {"both" if mocked else "it"}; a change of the source restarts the service):

  curl {base}/api/getUsers
  curl {base}/api/getEvents
  curl {base}/api/getEventsByUserId/1
  curl {base}/api/addEvent {ADD}
{durable}{story if mocked else ""}"""


def _base(settings: Settings) -> str:
    host = _reachable(settings)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _reachable(settings: Settings) -> str:
    return ANYWHERE.get(settings.host, settings.host)

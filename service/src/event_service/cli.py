"""The commands of `event-service`."""

import os
import signal
import sys

if sys.argv[1:2] in (["serve"], ["dev"]):
    # These imports take a while, during which nothing runs: a signal ends the process silently.
    # SIGHUP means reload to `serve`; `dev` ends with its terminal, unless `nohup` said otherwise.
    if sys.argv[1] == "serve":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: os._exit(0))
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))
elif (
    sys.argv[0].endswith(("event-service", "event_service/__main__.py"))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    # Until there is something to interrupt, the others end without a traceback of what they load.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from event_service import database_commands, outbox_commands
from event_service.command_settings import fail, settings_or_exit
from event_service.database_commands import export, import_
from event_service.libs.http_client import parse_base_url
from event_service.libs.listener import CannotListen, Listener
from event_service.outbox_commands import outbox
from event_service.settings import PREFIX, Environment, Settings, is_database


def _option(flag: str, metavar: str, text: str) -> Any:
    variable = PREFIX + flag.removeprefix("--").replace("-", "_").upper()
    return typer.Option(flag, metavar=metavar, help=f"{text} In place of {variable}.")


Host = Annotated[str | None, _option("--host", "ADDRESS", "Where to listen.")]
Port = Annotated[str | None, _option("--port", "NUMBER", "The port to listen on.")]
UpstreamUrl = Annotated[str | None, _option("--upstream-url", "URL", "Where the events API is.")]

main = typer.Typer(
    help="A fast, dependable service in front of a slow, fragile events API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:  # noqa: FBT001  how typer calls it
    if value:
        typer.echo(f"event-service {version('event-service')}")
        raise typer.Exit


@main.callback()
def about(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The commands of event-service; each has its own --help."""


@main.command()
def serve(host: Host = None, port: Port = None, upstream_url: UpstreamUrl = None) -> None:
    """Run the service. EVENT_SERVICE_* variables configure it; SIGTERM ends it gracefully."""
    _open_closed_streams()
    settings = _settings(host=host, port=port, upstream_url=upstream_url)
    # First of all, so that the second of two services started together fails at once.
    listener = _listen(settings.host, settings.port, "EVENT_SERVICE_PORT", count=settings.workers)
    if settings.outbox_url:
        outbox_commands.prepare(settings)
    elif is_database(settings.upstream_url):
        database_commands.prepare(settings)
    from event_service import server  # noqa: PLC0415  who cannot listen need not wait for it

    sys.exit(server.run(settings, listener))


main.command("import")(import_)
main.command()(export)


@main.command("check-config")
def check_config() -> None:
    """Print the effective settings with secrets masked; exit with 2 if any is wrong."""
    for line in _settings().env_lines():
        typer.echo(line)


@main.command("check-upstream")
def check_upstream(
    *,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="The user to read; by default the first.")
    ] = None,
    event: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The event to read; by default the user's first."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Add an event for the user, too.")] = False,
    upstream_url: UpstreamUrl = None,
) -> None:
    """Call each read of the upstream once and report what works; exit with 1 if something does not.

    It uses the settings that `serve` would use, and writes nothing without --write.
    """
    settings = _settings(upstream_url=upstream_url)
    if not settings.upstream_url.startswith(("http:", "https:")):
        fail("EVENT_SERVICE_UPSTREAM_URL names a database: there is no API to check", code=2)
    # Imported here, so that other commands start faster.
    from event_service import app  # noqa: PLC0415
    from event_service.models import is_id  # noqa: PLC0415
    from event_service.sources.upstream_check import report  # noqa: PLC0415

    for option, given in (("--user", user), ("--event", event)):
        if given is not None and not is_id(given):
            fail(f"{option}: {given!a} is no id that a path could hold", code=2)
    findings = asyncio.run(app.check_upstream(settings, user_id=user, event_id=event, write=write))
    typer.echo(f"{settings.upstream_url}\n\n{report(findings)}")
    sys.exit(any(finding.fault for finding in findings))


@main.command()
def migrate() -> None:
    """Migrate the database or the outbox to the schema of this release."""
    settings = _settings()
    if is_database(settings.upstream_url):
        database_commands.migrate(settings)
    elif settings.outbox_url:
        outbox_commands.migrate(settings)
    else:
        typer.echo("nothing to migrate: the settings name neither a database nor an outbox")


main.add_typer(outbox, name="outbox")


@main.command()
def dev(host: Host = None, port: Port = None, upstream_url: UpstreamUrl = None) -> None:
    """Run the service until Ctrl-C, restarted when its source changes. It starts a mock upstream
    unless you name an upstream of your own.
    """
    _open_closed_streams()
    if not (find_spec("watchfiles") and find_spec("mock_upstream")):
        fail("`dev` is an extra of its own: pip install 'event-service[dev]'", code=1)
    from event_service import dev as development  # noqa: PLC0415  `serve` need not wait for it

    settings = _settings(host=host, port=port, upstream_url=upstream_url)
    if settings.env is not Environment.DEVELOPMENT:
        fail(f"`dev` is for development; EVENT_SERVICE_ENV is {settings.env.value}", code=2)
    mocked = development.wants_mock(settings)
    if mocked:
        upstream = parse_base_url(settings.upstream_url)
        _listen(upstream.host, upstream.port, "EVENT_SERVICE_UPSTREAM_URL").close()
    _listen(settings.host, settings.port, "EVENT_SERVICE_PORT").close()
    sys.exit(development.run(settings, mocked=mocked))


def _settings(**flags: str | None) -> Settings:
    # Passed as variables, because workers load their settings themselves.
    os.environ.update({PREFIX + k.upper(): v for k, v in flags.items() if v is not None})
    return settings_or_exit()


def _open_closed_streams() -> None:
    """Open each standard stream that was closed before the start, to nowhere.

    Otherwise Python has None in its place, and a socket gets its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  never closed


def _listen(host: str, port: int, variable: str, *, count: int = 1) -> Listener:
    try:
        return Listener(host, port, count=count)
    except CannotListen as error:
        other = f"; choose another with {variable}" if error.port_is_at_fault else ""
        fail(f"{error}{other}.", code=1)

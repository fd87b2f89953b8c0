from __future__ import annotations

import asyncio
import errno
import signal
import time
from typing import Annotated

import typer
import uvloop

from mock_upstream.app import VERSION
from mock_upstream.dialects import DialectName
from mock_upstream.journal import Entry
from mock_upstream.server import listening, prepare_process_for_many_requests
from mock_upstream.upstream import MockUpstream

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_FAULTS = """Faults can be set while it runs. This makes the next two getUsers fail:

\b
curl -X PUT http://127.0.0.1:4010/__admin/faults/getUsers \\
     -d '{"status":503,"first_n":2}'

GET / lists the operations, GET /__admin what can be set and seen: faults, the journal of calls,
the cycle of addEvent, the event delay.
"""


def _print_version(value: bool) -> None:  # noqa: FBT001  how typer calls it
    if value:
        typer.echo(f"mock-upstream {VERSION}")
        raise typer.Exit


@app.command(epilog=_FAULTS)
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 4010,
    event_delay: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds that getEventById takes.")
    ] = 0.5,
    users: Annotated[
        int | None, typer.Option(min=1, help="Generate so many users instead of the sample ones.")
    ] = None,
    events_per_user: Annotated[
        int | None, typer.Option(min=0, help="Events of each generated user.  [default: 10]")
    ] = None,
    accept: Annotated[int, typer.Option(min=0, help="addEvent accepts so many calls,")] = 5,
    refuse: Annotated[
        int, typer.Option(min=0, help="then refuses so many, and so on round; 0 never refuses.")
    ] = 10,
    outage: Annotated[
        float | None,
        typer.Option(min=0.001, max=3600, help="Refusals end so many seconds after the first."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed: same generated data, same faults.")] = 0,
    dialect: Annotated[
        DialectName,
        typer.Option(
            help="Habits of ordinary APIs: rest answers 201 with the new event and serves /users"
            " and /events too; nulls has null and 204; numbers has numbers as ids."
        ),
    ] = "plain",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print a line for each call.")] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The external events API, slow, moody, and faulty on demand."""
    if events_per_user is not None and users is None:
        users = 3
    mock = MockUpstream(
        event_delay=event_delay,
        users=users,
        events_per_user=10 if events_per_user is None else events_per_user,
        accept=accept,
        refuse=refuse,
        outage=outage,
        seed=seed,
        dialect=dialect,
    )
    if verbose:
        mock.journal.on_end = _print_call
    prepare_process_for_many_requests()
    try:
        uvloop.run(_until_told_to_stop(mock, host, port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = f"port {port} is taken" if taken else f"cannot listen on {host}:{port}: {error}"
        typer.echo(f"mock upstream: {reason}", err=True)
        raise typer.Exit(1) from None


def _print_call(call: Entry) -> None:
    """One line, such as `15:36:37  POST  /addEvent  503  0.1 ms  status`."""
    began = time.strftime("%H:%M:%S", time.localtime(call.started))
    status = "no answer" if call.status is None else call.status
    fault = f"  {call.fault}" if call.fault else ""
    took = f"{(call.duration or 0.0) * 1000:.1f} ms"
    typer.echo(f"{began}  {call.method:4}  {call.path}  {status}  {took}{fault}")


async def _until_told_to_stop(mock: MockUpstream, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    async with listening(mock, host=host, port=port):
        typer.echo(f"mock upstream listening on {mock.url}")
        await stop.wait()
    # The loop takes its handlers along, and one more signal would kill what ends well.
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    app()

from __future__ import annotations

import asyncio
import errno
import signal
from typing import Annotated

import typer
import uvloop

from mock_upstream.server import listening, prepare_process_for_many_requests
from mock_upstream.upstream import MockUpstream

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
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
    seed: Annotated[int, typer.Option(help="Same seed: same generated data, same faults.")] = 0,
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
        seed=seed,
    )
    prepare_process_for_many_requests()
    try:
        uvloop.run(_until_told_to_stop(mock, host, port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = f"port {port} is taken" if taken else f"cannot listen on {host}:{port}: {error}"
        typer.echo(f"mock upstream: {reason}", err=True)
        raise typer.Exit(1) from None


async def _until_told_to_stop(mock: MockUpstream, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(mock, host=host, port=port):
        typer.echo(f"mock upstream listening on {mock.url}")
        await stop.wait()


def main() -> None:
    app()

"""`event-service outbox …`: inspect and change the outbox.

The database driver is imported only by the commands that need it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from event_service.command_settings import fail, settings_or_exit
from event_service.outbox.records import Delivery, State
from event_service.outbox.shown import details_of, problem_of
from event_service.outbox.store import Store, StoreFailed, StoreUnusable
from event_service.settings import ConfigurationError, Settings

T = TypeVar("T")

outbox = typer.Typer(
    help="Inspect, retry or drop events that are queued, refused or dead.", no_args_is_help=True
)
Id = Annotated[str, typer.Argument(help="The delivery's id, as in Location.", show_default=False)]


@outbox.command("list")
def list_deliveries(
    state: Annotated[State | None, typer.Option(help="Only deliveries in this state.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's deliveries.")] = None,
    before: Annotated[
        int | None, typer.Option(help="Only deliveries before this NUMBER, to read the next page.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
) -> None:
    """List deliveries, newest first."""

    async def page(store: Store) -> list[Delivery]:
        return await store.page(state=state, user_id=user, before=before, limit=limit)

    head = ("NUMBER", "ID", "STATE", "ATTEMPTS", "ACCEPTED", "USER", "PROBLEM")
    rows: list[tuple[str, ...]] = [head]
    rows += [_row(each) for each in _with_store(page)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@outbox.command()
def show(delivery_id: Id) -> None:
    """Show all details of a delivery as JSON."""
    delivery = _found(_with_store(lambda store: store.find(delivery_id)), delivery_id)
    known = msgspec.json.encode(details_of(delivery))
    typer.echo(msgspec.json.format(known, indent=2).decode())


@outbox.command()
def retry(delivery_id: Id) -> None:
    """Queue a refused or dead delivery again, at its old place."""
    if _with_store(lambda store: store.retry(delivery_id)):
        typer.echo("queued")
        return
    delivery = _found(_with_store(lambda store: store.find(delivery_id)), delivery_id)
    fail(f"it is {delivery.state}: only what was refused or is dead can be queued again", code=1)


@outbox.command()
def drop(delivery_id: Id) -> None:
    """Delete a delivery in any state. A current attempt continues."""
    if not _with_store(lambda store: store.drop(delivery_id)):
        fail("there is no such delivery", code=1)
    typer.echo("dropped")


def migrate(settings: Settings) -> None:
    """Apply the outbox's missing migrations."""
    for name in _run(lambda: _open_and_close(_store(settings))):
        typer.echo(f"outbox: {name}")
    typer.echo("outbox: up to date")


def prepare(settings: Settings) -> None:
    """Migrate before the workers start. Exits if they could never use the database.

    If it cannot be reached now, the workers wait for it.
    """
    try:
        asyncio.run(_open_and_close(_store(settings)))
    except (ConfigurationError, StoreUnusable) as error:
        fail(_refusal(error), code=2)
    except StoreFailed:
        pass


def _store(settings: Settings) -> Store:
    from event_service.wiring.durable_writes import build_store  # noqa: PLC0415

    return build_store(settings)


async def _open_and_close(store: Store) -> list[str]:
    try:
        return await store.open()
    finally:
        await store.close()


def _with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    settings = settings_or_exit()
    if not settings.outbox_url:
        fail("there is no outbox: EVENT_SERVICE_OUTBOX_URL is not set", code=2)

    async def run() -> T:
        store = _store(settings)
        try:
            await store.open()
            return await work(store)
        finally:
            await store.close()

    return _run(run)


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return asyncio.run(work())
    except (ConfigurationError, StoreUnusable) as error:
        fail(_refusal(error), code=2)
    except StoreFailed as error:
        fail(str(error), code=1)


def _refusal(error: Exception) -> str:
    if isinstance(error, StoreUnusable):
        return f"EVENT_SERVICE_OUTBOX_URL: {error}"
    return str(error)


def _found(delivery: Delivery | None, delivery_id: str) -> Delivery:
    if delivery is None:
        fail(f"there is no delivery {delivery_id}", code=1)
    return delivery


def _row(delivery: Delivery) -> tuple[str, ...]:
    accepted = datetime.fromtimestamp(delivery.accepted_at, UTC)
    return (
        str(delivery.seq),
        delivery.id,
        delivery.state,
        str(delivery.attempts),
        f"{accepted:%Y-%m-%d %H:%M:%S}Z",
        delivery.user_id,
        problem_of(delivery),
    )

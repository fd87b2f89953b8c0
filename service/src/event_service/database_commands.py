"""`event-service import | export`: users and events into a database, and out of it."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from event_service.settings import ConfigurationError, Settings, load_settings

if TYPE_CHECKING:
    from event_service.models import Event, User
    from event_service.sources.data_file import Data
    from event_service.sources.sql_events import Database

T = TypeVar("T")
# An upstream that is read from its beginning to its end may take its time, in seconds.
PATIENCE = 60.0
AT_ONCE = 50

File = Annotated[
    Path | None,
    typer.Argument(help='A file of {"users":[…],"events":[…]}; `-` is standard input.'),
]
From = Annotated[
    str | None, typer.Option("--from", help="Address of an events API to move over from.")
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", help="Sent to that API, such as 'authorization: Bearer …'."),
]


def import_(file: File = None, source: From = None, header: Headers = None) -> None:
    """Put users and events into the database of EVENT_SERVICE_UPSTREAM_URL, all or none.

    What is there under the same id is replaced.
    """
    if (file is None) == (source is None):
        _fail("Name a file, or an API with --from.", code=2)
    settings = _settings()
    if source is not None:
        asyncio.run(_import_from(settings, source, _headers(header or [])))
    elif file is not None:
        asyncio.run(_put(settings, _read(file)))


def export(file: Annotated[Path, typer.Argument(help="`-` is standard output.")]) -> None:
    """Write all users and events of the database into a file that `import` takes."""
    from event_service.sources.data_file import written  # noqa: PLC0415

    users, events = asyncio.run(_all_of(_settings()))
    try:
        target = sys.stdout.buffer if str(file) == "-" else file.open("wb")
        with target, _bar(written(users, events), len(users) + len(events), "records") as pieces:
            for piece in pieces:
                target.write(piece)
    except OSError as error:
        _fail(f"{file} cannot be written: {error.strerror}", code=1)


def _read(file: Path) -> "Data":
    from event_service.sources.data_file import DataFault, parse  # noqa: PLC0415

    try:
        return parse(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    except OSError as error:
        _fail(f"{file} cannot be read: {error.strerror}", code=1)
    except DataFault as fault:
        _fail(f"Nothing is imported from {file}. {fault}", code=1)


async def _import_from(settings: Settings, url: str, headers: dict[str, str]) -> None:
    from event_service.errors import EventServiceError  # noqa: PLC0415
    from event_service.libs.http_client import (  # noqa: PLC0415
        HttpClient,
        parse_base_url,
        tls_context,
    )
    from event_service.settings.values import UPSTREAM_PATHS  # noqa: PLC0415
    from event_service.sources.data_file import DataFault, read_api  # noqa: PLC0415
    from event_service.sources.http_events import HttpEvents  # noqa: PLC0415

    url = url.rstrip("/")
    try:
        where = parse_base_url(url)
        client = HttpClient(
            where,
            headers={"accept": "application/json", **headers},
            connections=AT_ONCE,
            max_body=1 << 30,
            tls=tls_context() if where.scheme == "https" else None,
        )
        api = HttpEvents(client, url=url, paths=UPSTREAM_PATHS, time_limit=PATIENCE)
    except ValueError as error:
        _fail(f"--from {url}: {error}", code=2)
    try:
        data = await read_api(api, at_once=AT_ONCE)
    except DataFault as fault:
        _fail(f"Nothing is imported from {url}. {fault}", code=1)
    except EventServiceError as error:
        _fail(f"{url} cannot be read: {getattr(error, 'reason', error)}", code=1)
    finally:
        await api.close()
    await _put(settings, data)


def migrate(settings: Settings) -> None:
    """Bring the database to the shape that this release needs."""

    async def apply() -> list[str]:
        async with _closing(settings) as database:
            return await database.migrate()

    for name in asyncio.run(apply()):
        typer.echo(f"events: {name}")
    typer.echo("events: up to date")


def prepare(settings: Settings) -> None:
    """Migrate before the workers start. Exits if they could never use the database.

    One that cannot be reached now is theirs to wait for.
    """

    async def look() -> None:
        async with _closing(settings) as database:
            await database.open()

    asyncio.run(look())


async def _put(settings: Settings, data: "Data") -> None:
    async with _opened(settings) as database:
        with (
            _bar(data.users, len(data.users), "users ") as users,
            _bar(data.events, len(data.events), "events") as events,
        ):
            await database.import_data(users, events)
    typer.echo(f"{len(data.users)} users and {len(data.events)} events are in the database.")


async def _all_of(settings: Settings) -> "tuple[list[User], list[Event]]":
    async with _opened(settings) as database:
        return await database.users(), await database.events()


@asynccontextmanager
async def _opened(settings: Settings) -> "AsyncIterator[Database]":
    """The database that the settings name, reached and brought to its shape."""
    async with _closing(settings) as database:
        await database.migrate()
        await database.open()
        yield database


@asynccontextmanager
async def _closing(settings: Settings) -> "AsyncIterator[Database]":
    """The database that the settings name, not opened yet. Exits if it cannot be used."""
    from event_service.sources.databases import build_database, unusable  # noqa: PLC0415

    # The pool logs each try; what comes of them is said below.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    database = build_database(
        settings.upstream_url,
        connections=settings.upstream_concurrency,
        timeout=settings.upstream_timeout,
    )
    try:
        yield database
    except unusable() as error:
        _fail(f"The database cannot be used: {error}", code=1)
    finally:
        await database.close()


def _bar(items: Iterable[T], length: int, label: str) -> AbstractContextManager[Iterable[T]]:
    """A progress bar for a person; nothing where nobody looks."""
    if not sys.stderr.isatty():
        return nullcontext(items)
    return typer.progressbar(items, length=length, label=label, file=sys.stderr)


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            _fail(f"--header {name.strip()}: must be 'name: value'", code=2)
        headers[name.strip().lower()] = value.strip()
    return headers


def _settings() -> Settings:
    from event_service.settings.values import is_database  # noqa: PLC0415

    try:
        settings = load_settings()
    except ConfigurationError as error:
        _fail(str(error), code=2)
    if not is_database(settings.upstream_url):
        _fail(
            "EVENT_SERVICE_UPSTREAM_URL names no database; it must be sqlite:///… or"
            " postgresql://…",
            code=2,
        )
    return settings


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)

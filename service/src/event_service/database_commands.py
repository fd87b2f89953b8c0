"""`event-service import | export`: copies users and events into and out of a database."""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeVar

import typer

from event_service.command_settings import fail, settings_or_exit
from event_service.settings import Settings, is_database

if TYPE_CHECKING:
    from event_service.sources.data_file import Data
    from event_service.sources.sql_events import Database

T = TypeVar("T")
# Seconds for one call of `import --from`; a list of everything may take long.
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
    """Import users and events into the database of EVENT_SERVICE_UPSTREAM_URL, all or none.

    Records with the same id are replaced.
    """
    if (file is None) == (source is None):
        fail("Name a file, or an API with --from.", code=2)
    settings = _settings()
    if source is not None:
        asyncio.run(_import_from(settings, source, _headers(header or [])))
    elif file is not None:
        _import_file(settings, file)


def export(file: Annotated[Path, typer.Argument(help="`-` is standard output.")]) -> None:
    """Write all users and events of the database to a file that `import` can read."""
    settings = _settings()
    try:
        with nullcontext(sys.stdout.buffer) if str(file) == "-" else file.open("wb") as target:
            failure = asyncio.run(_export(settings, target))
    except OSError as error:
        failure = error
    if failure is not None:
        fail(f"{file} cannot be written: {failure.strerror}", code=1)


async def _export(settings: Settings, target: BinaryIO) -> OSError | None:
    """Returns the error if the file could not be written; database errors exit."""
    from event_service.sources.data_file import written  # noqa: PLC0415

    async with _opened(settings) as database:
        with _bar(await database.count(), "records") as done:
            async for piece in written(database.everything()):
                try:
                    target.write(piece)
                except OSError as error:
                    return error
                done(1)
    return None


def _import_file(settings: Settings, file: Path) -> None:
    from event_service.sources.data_file import read_file  # noqa: PLC0415

    try:
        # The file is read twice: once for its users, once for its events.
        with (
            _readable_twice(file) as readable,
            _bar(2 * readable.seek(0, os.SEEK_END), "bytes") as done,
        ):
            counted = _Counted(read_file(_Watched(readable, done)))
            asyncio.run(_put(settings, counted, str(file)))
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", code=1)
    counted.tell()


@contextmanager
def _readable_twice(file: Path) -> Iterator[BinaryIO]:
    """The file. A pipe is copied to a temporary file first."""
    with ExitStack() as stack:
        given: BinaryIO = sys.stdin.buffer
        if str(file) != "-":
            given = stack.enter_context(file.open("rb"))
        if not given.seekable():
            kept = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(given, kept)
            given = kept
        yield given


class _Watched:
    """A file that reports how many bytes are read."""

    def __init__(self, file: BinaryIO, done: Callable[[int], None]) -> None:
        self._file = file
        self._done = done

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._done(len(piece))
        return piece

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


class _Counted:
    """Counts users and events as they are read."""

    def __init__(self, data: "Data", done: Callable[[int], None] = lambda _done: None) -> None:
        self._done = done
        self.users = self._count("users", data.users)
        self.events = self._count("events", data.events)
        self._number = {"users": 0, "events": 0}

    def _count(self, what: str, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self._number[what] += 1
            self._done(1)
            yield item

    def tell(self) -> None:
        users, events = self._number["users"], self._number["events"]
        typer.echo(f"{users} users and {events} events are in the database.")


async def _import_from(settings: Settings, url: str, headers: dict[str, str]) -> None:
    from event_service.errors import EventServiceError  # noqa: PLC0415
    from event_service.libs.http_client import (  # noqa: PLC0415
        HttpClient,
        parse_base_url,
        tls_context,
    )
    from event_service.settings.values import UPSTREAM_PATHS  # noqa: PLC0415
    from event_service.sources.data_file import checked, read_api  # noqa: PLC0415
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
        fail(f"--from {url}: {error}", code=2)
    try:
        users, events = await read_api(api, at_once=AT_ONCE)
    except EventServiceError as error:
        fail(f"{url} cannot be read: {getattr(error, 'reason', error)}", code=1)
    finally:
        await api.close()
    with _bar(len(users) + len(events), "records") as done:
        counted = _Counted(checked(users, events), done)
        await _put(settings, counted, url)
    counted.tell()


def migrate(settings: Settings) -> None:
    """Apply the database's missing migrations."""

    async def apply() -> list[str]:
        async with _closing(settings) as database:
            return await database.migrate()

    for name in asyncio.run(apply()):
        typer.echo(f"events: {name}")
    typer.echo("events: up to date")


def prepare(settings: Settings) -> None:
    """Migrate before the workers start. Exits if they could never use the database.

    If it cannot be reached now, the workers wait for it.
    """

    async def look() -> None:
        async with _closing(settings) as database:
            await database.open()

    asyncio.run(look())


async def _put(settings: Settings, data: "_Counted", origin: str) -> None:
    from event_service.sources.data_file import DataFault  # noqa: PLC0415

    try:
        async with _opened(settings) as database:
            await database.import_data(data.users, data.events)
    except DataFault as fault:
        fail(f"Nothing is imported from {origin}. {fault}", code=1)


@asynccontextmanager
async def _opened(settings: Settings) -> "AsyncIterator[Database]":
    """The database that the settings name, migrated and open."""
    async with _closing(settings) as database:
        await database.migrate()
        await database.open()
        yield database


@asynccontextmanager
async def _closing(settings: Settings) -> "AsyncIterator[Database]":
    """The database that the settings name, not opened yet. Exits if it cannot be used."""
    from event_service.sources.databases import build_database, unusable  # noqa: PLC0415

    # The pool logs every attempt; the final error is reported below.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    database = build_database(
        settings.upstream_url,
        connections=settings.upstream_concurrency,
        timeout=settings.upstream_timeout,
    )
    try:
        yield database
    except unusable() as error:
        fail(f"The database cannot be used: {error}", code=1)
    finally:
        await database.close()


@contextmanager
def _bar(length: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar, if stderr is a terminal. The function takes the number of steps done."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    with typer.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            fail(f"--header {name.strip()}: must be 'name: value'", code=2)
        headers[name.strip().lower()] = value.strip()
    return headers


def _settings() -> Settings:
    settings = settings_or_exit()
    if not is_database(settings.upstream_url):
        fail(
            "EVENT_SERVICE_UPSTREAM_URL names no database; it must be sqlite:///… or"
            " postgresql://…",
            code=2,
        )
    return settings

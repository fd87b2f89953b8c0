import apsw

from event_service.libs.migrations import MigrationError
from event_service.libs.sqlite import SqliteUnusable
from event_service.sources.sql_events import Database


def build_database(url: str, *, connections: int, timeout: float) -> Database:
    """The database that a `sqlite:` or `postgresql:` URL names, not opened yet.

    `connections` bounds those to a server; `timeout`, in seconds, connecting and each statement.
    """
    # The driver of the other one may not be installed.
    if url.startswith("sqlite:"):
        from event_service.sources.sqlite_events import SqliteEvents  # noqa: PLC0415

        return SqliteEvents(url)
    from event_service.sources.postgres_events import PostgresEvents  # noqa: PLC0415

    return PostgresEvents(url, connections=connections, timeout=timeout)


def unusable() -> tuple[type[Exception], ...]:
    """What `open` raises for a database that cannot be used as it is."""
    try:
        import psycopg  # noqa: PLC0415

        from event_service.libs.postgres import PostgresUnusable  # noqa: PLC0415
    except ImportError:
        return (SqliteUnusable, apsw.Error, MigrationError, OSError)
    return (
        *(SqliteUnusable, apsw.Error, MigrationError, OSError),
        *(PostgresUnusable, psycopg.Error),
    )

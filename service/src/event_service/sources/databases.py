import apsw

from event_service.libs.migrations import MigrationError
from event_service.libs.sqlite import SqliteUnusable
from event_service.sources.sql_events import Database


def build_database(url: str, *, connections: int, timeout: float) -> Database:
    """The database that a `sqlite:` or `postgresql:` URL names, not opened yet.

    `connections` limits the connections to a server. `timeout`, in seconds, limits connecting and
    each statement.
    """
    # Import only the driver that is needed: the other may not be installed.
    if url.startswith("sqlite:"):
        from event_service.sources.sqlite_events import SqliteEvents  # noqa: PLC0415

        return SqliteEvents(url)
    from event_service.sources.postgres_events import PostgresEvents  # noqa: PLC0415

    return PostgresEvents(url, connections=connections, timeout=timeout)


def unusable() -> tuple[type[Exception], ...]:
    """The exceptions that `open` raises for a database that needs an operator's attention."""
    try:
        import psycopg  # noqa: PLC0415

        from event_service.libs.postgres import PostgresUnusable  # noqa: PLC0415
    except ImportError:
        return (SqliteUnusable, apsw.Error, MigrationError, OSError)
    return (
        *(SqliteUnusable, apsw.Error, MigrationError, OSError),
        *(PostgresUnusable, psycopg.Error),
    )

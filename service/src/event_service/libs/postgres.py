"""A pool of connections to PostgreSQL; needs the extra `event-service[postgres]`."""

from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

OLDEST_SERVER = 130_000  # as libpq counts: 13.0

Connection = psycopg.AsyncConnection[tuple[object, ...]]
Pool = AsyncConnectionPool[Connection]


class PostgresUnusable(Exception):
    """The server cannot be used; the text says why and holds no credentials."""


def conninfo_of(url: str, *, connect_timeout: float) -> str:
    """Connection parameters for libpq: those of the URL, TLS included, plus ours.

    Raises ValueError for a URL that libpq cannot parse; the text does not repeat it.
    """
    if urlsplit(url).scheme not in {"postgresql", "postgres"}:
        raise ValueError("must be postgresql://user@host/database")
    try:
        given: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError("must be postgresql://user@host/database") from None
    ports = str(given.get("port", "")).split(",")
    if not all(port == "" or _is_port(port) for port in ports):
        raise ValueError("must have a port from 1 to 65535")
    ours: dict[str, str | int] = {
        "application_name": "event-service",
        "client_encoding": "UTF8",
        "connect_timeout": max(1, round(connect_timeout)),
        # Detect a dead server machine within half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    return make_conninfo(**{**ours, **given})


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65_536  # noqa: PLR2004


def build_pool(
    url: str, *, max_size: int, timeout: float, statement_timeout: float, checked: bool
) -> Pool:
    """An unopened pool whose connections are in autocommit mode.

    `timeout` bounds connecting and the wait for a free connection, `statement_timeout` each
    statement; both in seconds. With `checked`, each connection is tested when taken, at the cost of
    a round trip, so that one that the server has closed is replaced before it is used.
    """
    milliseconds = round(statement_timeout * 1000)

    async def configure(connection: Connection) -> None:
        # Not as start-up options, which connection poolers refuse.
        await connection.execute(f"SET statement_timeout = {milliseconds}")
        await connection.execute("SET idle_in_transaction_session_timeout = '60s'")

    return AsyncConnectionPool(
        conninfo_of(url, connect_timeout=timeout),
        connection_class=Connection,
        kwargs={"autocommit": True},
        min_size=1,
        max_size=max_size,
        timeout=timeout,
        configure=configure,
        check=AsyncConnectionPool.check_connection if checked else None,
        reconnect_timeout=timeout,
        open=False,
    )


def refuse_old_server(connection: Connection) -> None:
    """Raise PostgresUnusable for a server before version 13."""
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise PostgresUnusable(f"PostgreSQL {version // 10_000} is too old: 13 or newer is needed")


async def fetch(connection: Connection, statement: str, values: Any = None) -> list[Any]:
    """All that a statement returns; raises psycopg.Error."""
    return await (await connection.execute(statement.encode(), values)).fetchall()

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .postgres_server import PostgresServer, postgres_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres(needs: Callable[[str], Path]) -> Iterator[PostgresServer]:
    """A PostgreSQL server that no test stops; skips without the program."""
    with postgres_server(needs("initdb").parent) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """A server of others as well, with nothing in it that the test could see."""
    return postgres.create_schema()


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> str:
    """An empty database of the test's own, for what PostgreSQL keeps by database."""
    return postgres.create_database()


@pytest.fixture
def stoppable_postgres(needs: Callable[[str], Path]) -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, to be stopped and started."""
    with postgres_server(needs("initdb").parent) as server:
        yield server

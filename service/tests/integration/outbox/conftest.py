from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .stores import Database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("initdb"))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return Database(tmp_path / "outbox.db")
    return Database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Any]:
    async with database.store() as store:
        yield store

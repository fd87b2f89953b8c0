"""The running service keeps to its own OpenAPI document, whatever a fuzzer makes of it."""

import asyncio
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Start

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, ()),
        (
            {"env": "production", "ops_token": "secret-token-of-operators", "log_level": "warning"},
            ("--header", "Authorization: Bearer secret-token-of-operators"),
        ),
    ],
    ids=["open", "guarded"],
)
async def test_schemathesis_finds_nothing(
    start: Start,
    tmp_path: Path,
    times: Callable[[int, int], int],
    settings: dict[str, Any],
    options: tuple[str, ...],
):
    # A key that comes with another event is rightly refused, however valid the event is.
    (tmp_path / "schemathesis.toml").write_text(
        "[checks.positive_data_acceptance]\n"
        'expected-statuses = ["2xx", "401", "404", "409", "422", "429", "5xx"]\n'
    )
    outbox = f"sqlite:///{tmp_path}/outbox.db"
    async with start(outbox_url=outbox, **settings) as client:
        process = await asyncio.create_subprocess_exec(
            SCHEMATHESIS,
            "run",
            f"{client._base_url}/openapi.json",
            "--checks=all",
            f"--max-examples={times(4, 15)}",
            "--seed=1",
            "--generation-database=none",
            "--no-color",
            *options,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    assert "15 selected / 15 total" in output.decode(), output.decode()
    assert "Tested: 15" in output.decode(), output.decode()

"""`event-service migrate` and `event-service outbox`, as an operator runs them."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path

import apsw
import pytest

from mock_upstream import Fault, MockUpstream

from .conftest import Start
from .test_durable_writes import add, settled

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COMMAND = Path(sys.executable).parent / "event-service"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/outbox.db"


async def run(
    *arguments: str, url: str = "", more: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit code, output and error output."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        env={
            "EVENT_SERVICE_ENV": "testing",
            "EVENT_SERVICE_OUTBOX_URL": url,
            "COLUMNS": "200",
            **(more or {}),
        },
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_an_operator_sees_what_failed_queues_it_again_and_drops_it(
    start: Start, mock: MockUpstream, url: str
):
    mock.faults.set("addEvent", Fault(status=422))
    async with start(outbox_url=url) as client:
        location = (await add(client, {"userId": "1", "title": "t"})).headers["Location"]
        assert (await settled(client, location))["status"] == "refused"
        delivery_id = location.rpartition("/")[2]

        code, out, _ = await run("outbox", "list", "--state", "refused", url=url)
        assert code == 0
        head, line = out.splitlines()
        assert head.split()[:4] == ["NUMBER", "ID", "STATE", "ATTEMPTS"]
        assert line.split()[1:4] == [delivery_id, "refused", "1"]
        assert line.endswith("upstream-rejected")
        assert (await run("outbox", "list", "--user", "2", url=url))[1].count("\n") == 1

        code, out, _ = await run("outbox", "show", delivery_id, url=url)
        shown = json.loads(out)
        assert code == 0
        assert shown["event"] == {"userId": "1", "title": "t", "description": None}
        assert shown["lastProblem"]["type"] == "/problems/upstream-rejected"

        mock.faults.clear("addEvent")
        assert (await run("outbox", "retry", delivery_id, url=url))[:2] == (0, "queued\n")
        assert (await settled(client, location))["status"] == "delivered"
        code, _, err = await run("outbox", "retry", delivery_id, url=url)
        assert (code, "it is delivered" in err) == (1, True)

        assert (await run("outbox", "drop", delivery_id, url=url))[:2] == (0, "dropped\n")
        assert (await client.get(location)).status == 404
        assert (await run("outbox", "drop", delivery_id, url=url))[0] == 1
        assert (await run("outbox", "show", delivery_id, url=url))[0] == 1


async def test_migrate_says_what_it_applied(url: str):
    assert await run("migrate", url=url) == (0, "outbox: outbox\noutbox: up to date\n", "")
    assert await run("migrate", url=url) == (0, "outbox: up to date\n", "")


async def test_migrate_is_for_a_database_as_well(tmp_path: Path):
    upstream = {"EVENT_SERVICE_UPSTREAM_URL": f"sqlite:///{tmp_path}/events.db"}
    code, out, _ = await run("migrate", more=upstream)
    assert (code, out.splitlines()[-1]) == (0, "events: up to date")
    assert len(out.splitlines()) > 1
    assert (await run("migrate", more=upstream))[1] == "events: up to date\n"


async def test_without_an_outbox_the_commands_say_so():
    code, _, err = await run("outbox", "list")
    assert (code, "EVENT_SERVICE_OUTBOX_URL is not set" in err) == (2, True)
    assert (await run("migrate"))[0] == 0


@pytest.mark.parametrize("command", [("serve",), ("migrate",), ("outbox", "list")])
async def test_an_outbox_that_can_never_work_is_refused_by_name(tmp_path: Path, command):
    code, _, err = await run(*command, url=f"sqlite:///{tmp_path}/nowhere/outbox.db")
    assert code == 2
    assert "EVENT_SERVICE_OUTBOX_URL: must name a file in a folder that exists" in err


async def test_a_database_of_a_later_release_is_refused(url: str, tmp_path: Path):
    await run("migrate", url=url)
    connection = apsw.Connection(str(tmp_path / "outbox.db"))
    connection.execute("INSERT INTO schema_migrations VALUES ('outbox', 2, 'later', 'x', 0)")
    connection.close()
    code, _, err = await run("migrate", url=url)
    assert (code, "older than the database" in err) == (2, True)


async def test_a_server_that_is_down_is_an_error_of_the_command():
    code, _, err = await run("outbox", "list", url="postgresql://nobody:s3cret@127.0.0.1:1/x")
    assert code == 1
    assert "s3cret" not in err

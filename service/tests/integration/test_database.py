"""The service in front of a database of its own: the same API, the same guards."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import apsw
import psycopg
import pytest

from event_service.models import Event, User
from event_service.sources.data_file import checked
from event_service.sources.postgres_events import PostgresEvents
from event_service.sources.sqlite_events import SqliteEvents
from mock_upstream import MockUpstream

from .conftest import Start

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

USERS = [User("1", "Alice", ["11", "12"]), User("2", "Bob", [])]
EVENTS = [Event("11", "1", "Breakfast", "Rolls"), Event("12", "1", "Review", "")]


async def fill(source) -> None:
    await source.open()
    await source.import_data(*checked(USERS, EVENTS))
    await source.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("initdb"))])
async def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/events.db"
        await fill(SqliteEvents(url))
    else:
        url = request.getfixturevalue("postgres_url")
        await fill(PostgresEvents(url, connections=2, timeout=5.0))
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("initdb"))])
def url_of_nothing(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return request.getfixturevalue("postgres_url")


async def test_the_api_answers_from_the_database(start: Start, url: str):
    async with start(upstream_url=url) as client:

        async def get(path: str) -> tuple[int, object]:
            async with client.get(f"/api/{path}") as response:
                return response.status, json.loads(await response.read())

        assert await get("getUsers") == (
            200,
            [
                {"id": "1", "name": "Alice", "events": ["11", "12"]},
                {"id": "2", "name": "Bob", "events": []},
            ],
        )
        status, events = await get("getEventsByUserId/1")
        assert (status, [event["id"] for event in events]) == (200, ["11", "12"])
        assert await get("getEventsByUserId/2") == (200, [])
        assert (await get("getEventsByUserId/3"))[0] == 404
        assert (await get("getEventsByUserId/1?partial=true"))[1]["partial"] is False
        assert len((await get("getEvents"))[1]) == 2


async def test_an_event_is_added_once_for_each_key(start: Start, url: str):
    async with start(upstream_url=url) as client:

        async def add(title: str, **headers: str) -> tuple[int, dict[str, str]]:
            event = {"userId": "1", "title": title}
            async with client.post("/api/addEvent", json=event, headers=headers) as response:
                return response.status, json.loads(await response.read())

        key = {"Idempotency-Key": "k", "Prefer": "respond-async"}
        first, again = await add("Standup", **key), await add("Standup", **key)
        other = await add("Other", **key)
        async with client.get("/api/getEventsByUserId/1") as response:
            stored = await response.json()

    assert first == again
    assert first[0] == 200, "it is done, so there is nothing to wait for"
    assert (other[0], other[1]["type"]) == (422, "/problems/idempotency-key-reused")
    assert [event["id"] for event in stored] == ["11", "12", first[1]["id"]]


async def test_one_statement_reads_a_user_from_sqlite(start: Start, tmp_path):
    url = f"sqlite:///{tmp_path}/events.db"
    await fill(SqliteEvents(url))
    statements: list[str] = []

    def count(connection: apsw.Connection) -> None:
        connection.exec_trace = lambda _cursor, statement, _values: not statements.append(statement)

    apsw.connection_hooks.append(count)
    try:
        async with start(upstream_url=url) as client:
            statements.clear()
            for user_id, status in (("1", 200), ("2", 200), ("3", 404)):
                async with client.get(f"/api/getEventsByUserId/{user_id}") as response:
                    assert response.status == status
    finally:
        apsw.connection_hooks.remove(count)

    assert len(statements) == 3
    assert all(each.startswith("SELECT") for each in statements)


async def test_one_statement_reads_a_user_from_postgresql(start: Start, postgres_database: str):
    await fill(PostgresEvents(postgres_database, connections=2, timeout=5.0))
    async with start(upstream_url=postgres_database, upstream_concurrency=1) as client:
        before = await _statements(postgres_database)
        for _ in range(50):
            async with client.get("/api/getEventsByUserId/1") as response:
                assert response.status == 200
    # A connection tells what it has done at its end.
    await _until_disconnected(postgres_database)
    after = await _statements(postgres_database)

    # Transactions, for in autocommit each statement is one; some more are the question's own and
    # those with which a connection begins.
    assert 50 <= after - before <= 50 + 12


async def test_who_reads_at_the_same_time_shares_statements(postgres_database: str):
    source = PostgresEvents(postgres_database, connections=2, timeout=5.0)
    await source.open()
    await source.import_data(*checked(USERS, EVENTS))
    before = await _statements(postgres_database)
    found = await asyncio.gather(*(source.events_of("12"[n % 2]) for n in range(200)))
    await source.close()
    await _until_disconnected(postgres_database)
    after = await _statements(postgres_database)

    assert [[event.id for event in events] for events in found] == [["11", "12"], []] * 100
    assert after - before < 40


async def _statements(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (
            await connection.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            )
        ).fetchone()
        return int(row[0]) if row else 0


async def test_postgresql_restarted_under_load_is_well_again_within_the_cooldown(
    start: Start, stoppable_postgres
):
    server, connections = stoppable_postgres, 8
    url = server.create_database()
    await fill(PostgresEvents(url, connections=2, timeout=5.0))
    values = {
        "upstream_url": url,
        "upstream_timeout": 0.5,
        "upstream_concurrency": connections,
        "breaker_cooldown": 0.5,
        "single_flight": False,
    }
    async with start(**values) as client:
        found: Counter[str] = Counter()
        stopped = asyncio.Event()

        async def read() -> str:
            async with client.get("/api/getEventsByUserId/1") as response:
                body = await response.read()
                assert response.status in {200, 502, 503, 504}, body
                return "ok" if response.status == 200 else json.loads(body)["type"]

        async def load() -> None:
            while not stopped.is_set():
                found[await read()] += 1
                await asyncio.sleep(0.01)

        async def until(kind: str) -> None:
            found.clear()
            async with asyncio.timeout(20):
                while not found[kind]:  # noqa: ASYNC110  another process starts and stops
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(load())
            try:
                await until("ok")
                for how in (signal.SIGINT, signal.SIGQUIT):
                    await asyncio.to_thread(server.stop, how)
                    await until("/problems/circuit-open")
                    await asyncio.to_thread(server.start)
                    await until("ok")
            finally:
                stopped.set()
        assert await read() == "ok"
        assert 1 <= await _connections(url) <= connections
    await _until_disconnected(url)


async def _connections(url: str) -> int:
    """Those of the service."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'event-service' AND datname = current_database()"
        )
        row = await found.fetchone()
        return int(row[0]) if row else 0


async def _until_disconnected(url: str) -> None:
    async with asyncio.timeout(20):
        while await _connections(url):  # noqa: ASYNC110  another process ends
            await asyncio.sleep(0.02)


def event_service(
    url: str, *arguments: str, given: bytes = b"", **variables: str
) -> tuple[int, str, str]:
    env = {"EVENT_SERVICE_ENV": "testing", "EVENT_SERVICE_UPSTREAM_URL": url, "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "event_service", *arguments],
        env=env | variables,
        input=given,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_what_is_exported_can_be_imported(tmp_path):
    url, copy = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    data = {
        "users": [{"id": 1, "name": None, "events": ["12", "11"]}],
        "events": [
            {"id": "11", "userId": "1", "title": "One", "description": None},
            {"id": "12", "userId": 1, "title": "Two"},
        ],
    }
    given = json.dumps(data).encode()
    assert event_service(url, "import", "-", given=given)[0] == 0

    code, exported, _ = event_service(url, "export", "-")

    assert code == 0
    assert json.loads(exported)["users"] == [{"id": "1", "name": "", "events": ["12", "11"]}]
    assert event_service(copy, "import", "-", given=exported.encode())[0] == 0
    assert event_service(copy, "export", "-")[1] == exported


def test_one_bad_record_is_named_and_nothing_is_imported(url_of_nothing):
    data = b'{"users":[{"id":"1"},{"id":"2"}],"events":[{"id":"9","userId":"1"},{"userId":"2"}]}'

    code, _, said = event_service(url_of_nothing, "import", "-", given=data)

    assert code == 1
    assert "Nothing is imported from -. $.events[1]: " in said
    assert "Traceback" not in said
    exported = event_service(url_of_nothing, "export", "-")[1]
    assert json.loads(exported) == {"users": [], "events": []}


def test_a_database_that_is_broken_is_an_error_of_the_command(tmp_path):
    url, path = f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"
    data = b'{"users":[{"id":"1"}],"events":[]}'
    assert event_service(url, "import", "-", given=data)[0] == 0
    with apsw.Connection(str(path)) as other:
        other.execute("DROP TABLE events")
    code, _, said = event_service(url, "export", "-")
    assert (code, said) == (1, "The database cannot be used: no such table: events\n")
    path.write_bytes(b"no database" * 1_000)
    code, _, said = event_service(url, "export", "-")
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("The database cannot be used: ")


def test_a_variable_that_is_ignored_is_named(tmp_path):
    link = {"EVENT_SERVICE_PORT": "tcp://10.0.0.1:3000"}  # as Kubernetes makes it up

    code, _, said = event_service(f"sqlite:///{tmp_path}/a.db", "export", "-", **link)

    assert code == 0
    assert said.startswith("Ignored EVENT_SERVICE_PORT: ")


def test_events_may_come_first_and_through_a_pipe(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    given = b'{"events":[{"id":"9","userId":"1","title":"t"}],"users":[{"id":"1","events":["9"]}]}'

    code, said, _ = event_service(url, "import", "-", given=given)

    assert (code, said) == (0, "1 users and 1 events are in the database.\n")
    assert json.loads(event_service(url, "export", "-")[1])["users"][0]["events"] == ["9"]


def test_whoever_watches_sees_how_far_it_is(tmp_path):
    url, file = f"sqlite:///{tmp_path}/a.db", tmp_path / "data.json"
    file.write_text('{"users":[{"id":"1","name":"A"}],"events":[]}')
    for arguments, label in (("import", "bytes"), ("export", "records")):
        ours, theirs = os.openpty()
        with open(ours, "rb", closefd=True) as terminal:  # noqa: PTH123  a descriptor
            subprocess.run(
                [sys.executable, "-m", "event_service", arguments, file],
                env={"EVENT_SERVICE_ENV": "testing", "EVENT_SERVICE_UPSTREAM_URL": url, "PATH": ""},
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                check=True,
            )
            shown = os.read(terminal.fileno(), 10_000).decode()
            os.close(theirs)
        assert label in shown
        assert "100%" in shown


def test_a_file_that_cannot_be_written_is_not_a_failure_of_the_database(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    for file in ("/dev/full", f"{tmp_path}/nowhere/x.json"):
        code, _, said = event_service(url, "export", file)
        assert (code, f"{file} cannot be written" in said) == (1, True)


async def test_an_events_api_is_moved_over(mock: MockUpstream, tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"

    code, _, said = await asyncio.to_thread(event_service, url, "import", "--from", mock.url)

    assert (code, said) == (0, "")
    exported = json.loads((await asyncio.to_thread(event_service, url, "export", "-"))[1])
    assert [user["name"] for user in exported["users"]] == [
        *("Alice Johnson", "Bob Anderson", "Carla Mendez")
    ]
    assert [event["id"] for event in exported["events"]] == ["101", "102", "103"]


def test_migrate_says_what_it_did_and_serve_what_it_cannot_do(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"

    assert event_service(url, "migrate")[1] == "events: users_and_events\nevents: up to date\n"
    assert event_service(url, "migrate")[1] == "events: up to date\n"
    code, _, said = event_service(f"sqlite:///{tmp_path}/nowhere/a.db", "serve", "--port", "0")
    assert code != 0
    assert "Traceback" not in said


async def test_a_server_that_is_not_there_yet_is_waited_for(start: Start, stoppable_postgres):
    url = stoppable_postgres.create_database()
    stoppable_postgres.stop()
    values = {"upstream_url": url, "upstream_timeout": 0.3, "single_flight": False}
    async with start(**values) as client:

        async def status() -> int:
            async with client.get("/api/getUsers") as response:
                return response.status

        assert await status() in {502, 503, 504}
        stoppable_postgres.start()
        async with asyncio.timeout(30):
            while await status() != 200:  # noqa: ASYNC110  another process starts
                await asyncio.sleep(0.05)

"""What fails in a database of our own: the real thing is locked, cut, filled and given up."""

import asyncio
import time
from contextlib import asynccontextmanager

import apsw
import psycopg
import pytest

from event_service.errors import (
    UpstreamBroken,
    UpstreamFailed,
    UpstreamTimeout,
    UserNotFound,
)
from event_service.models import Event, NewEvent, User
from event_service.sources.data_file import checked
from event_service.sources.postgres_events import PostgresEvents
from event_service.sources.sqlite_events import SqliteEvents

from .conftest import Start

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

USERS = [User("1", "Alice", ["11"]), User("2", "Bob", [])]
EVENTS = [Event("11", "1", "Breakfast", "Rolls")]
NEW = NewEvent("1", "Standup")
WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@asynccontextmanager
async def postgres_events(url, **options):
    source = PostgresEvents(url, **{"connections": 2, "timeout": 5.0, **options})
    try:
        await source.open()
        await source.import_data(*checked(USERS, EVENTS))
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def transaction(url, *statements):
    """Another program's, which is rolled back at the end."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for statement in statements:
            await connection.execute(statement)
        try:
            yield connection
        finally:
            await connection.rollback()


async def asked(url, statement):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await (await connection.execute(statement)).fetchall()


async def until_one_waits(url):
    async with asyncio.timeout(20):
        while not await asked(url, WAITING):  # noqa: ASYNC110  another process waits
            await asyncio.sleep(0.01)


LOCK = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"


async def test_a_statement_that_takes_too_long_is_a_failure(postgres_url):
    async with postgres_events(postgres_url, timeout=0.3) as source:
        async with transaction(postgres_url, LOCK):
            for read in (source.users, lambda: source.events_of("1"), lambda: source.user("1")):
                with pytest.raises(UpstreamTimeout):
                    await read()
            with pytest.raises(UpstreamTimeout):
                await source.add_event(NEW, event_id="new", idempotency_key="k")
        assert await source.users() == USERS
        assert await source.add_event(NEW, event_id="new", idempotency_key="k") == "new"


async def test_a_pool_without_a_free_connection_is_a_failure(postgres_url):
    async with postgres_events(postgres_url, connections=1, timeout=0.3) as source:
        async with transaction(postgres_url, LOCK):
            # What an import waits for has no time limit.
            importing = asyncio.create_task(source.import_data(*checked(USERS, EVENTS)))
            await until_one_waits(postgres_url)
            with pytest.raises(UpstreamFailed) as told:
                await source.events()
            assert told.value.reason == "no connection in time"
        await importing
        assert await source.events() == EVENTS


async def test_a_deadlock_is_tried_again(postgres_database):
    name = postgres_database.rpartition("/")[2]
    await asked_to_do(postgres_database, f"ALTER DATABASE {name} SET deadlock_timeout = '50ms'")
    add_key = (
        "INSERT INTO idempotency_keys (key, event_id, fingerprint, added_at)"
        " VALUES ('k', 'x', '', 0)"
    )
    async with postgres_events(postgres_database) as source:
        async with transaction(
            postgres_database, "SELECT 1 FROM users WHERE id = '1' FOR UPDATE"
        ) as other:
            adding = asyncio.create_task(source.add_event(NEW, event_id="new", idempotency_key="k"))
            await until_one_waits(postgres_database)
            try:
                await other.execute(add_key)
            except psycopg.errors.DeadlockDetected:
                pytest.fail("the other one was given up: nothing to see")
        assert await adding == "new"
        assert [event.id for event in await source.events_of("1")] == ["11", "new"]


async def test_a_connection_that_is_cut_under_a_statement_is_replaced(postgres_url):
    async with postgres_events(postgres_url, connections=1) as source:
        async with transaction(postgres_url, LOCK):
            reading = asyncio.create_task(source.users())
            await until_one_waits(postgres_url)
            await asked(
                postgres_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'event-service'",
            )
            with pytest.raises(UpstreamBroken):
                await reading
        assert await source.users() == USERS


async def test_calls_that_are_given_up_leave_no_transaction_and_no_connection_behind(postgres_url):
    connections = 3
    async with postgres_events(postgres_url, connections=connections) as source:
        async with transaction(postgres_url, "LOCK TABLE events IN ACCESS EXCLUSIVE MODE"):
            calls = [
                asyncio.create_task(
                    source.add_event(NEW, event_id=f"new-{n}", idempotency_key=f"key-{n}")
                )
                for n in range(2 * connections)
            ]
            await until_one_waits(postgres_url)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert all(call.cancelled() for call in calls)
        assert await source.events() == EVENTS
        states = await asked(
            postgres_url,
            "SELECT state FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'event-service'",
        )
        assert {state for (state,) in states} == {"idle"}
        assert len(states) <= connections
        added = await source.add_event(NEW, event_id="new-0", idempotency_key="key-0")
        assert added == "new-0"


async def test_what_the_data_say_is_no_failure(start: Start, postgres_url):
    async with postgres_events(postgres_url):
        pass
    async with start(upstream_url=postgres_url) as client:
        for _ in range(25):
            async with client.get("/api/getEventsByUserId/nobody") as reply:
                assert reply.status == 404
            async with client.post("/api/addEvent", json={"userId": "x", "title": "t"}) as reply:
                assert reply.status == 404
        async with client.get("/metrics") as reply:
            text = await reply.text()
    assert 'circuit_breaker_state{breaker="addEvent",state="closed"} 1.0' in text
    assert 'circuit_breaker_state{breaker="getEventsByUserId",state="closed"} 1.0' in text


@pytest.mark.parametrize(
    "dialect", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("initdb"))]
)
async def test_a_violated_constraint_is_not_a_failure_and_affects_no_other_event(
    start: Start, request, tmp_path, dialect
):
    if dialect == "sqlite":
        url = f"sqlite:///{tmp_path}/events.db"
        source = SqliteEvents(url)
        await source.open()
        await source.import_data(*checked(USERS, EVENTS))
        await source.close()
        with apsw.Connection(f"{tmp_path}/events.db") as connection:
            connection.execute(
                "CREATE TRIGGER no BEFORE INSERT ON events WHEN new.title = 'no'"
                " BEGIN SELECT raise(ABORT, 'no such title'); END"
            )
    else:
        url = request.getfixturevalue("postgres_url")
        async with postgres_events(url):
            await asked_to_do(url, "ALTER TABLE events ADD CHECK (title <> 'no')")
    async with start(upstream_url=url) as client:

        async def add(n):
            event = {"userId": "2", "title": "no" if n % 2 else "yes"}
            headers = {"Idempotency-Key": f"k-{n}"}
            async with client.post("/api/addEvent", json=event, headers=headers) as reply:
                return reply.status, (await reply.json()).get("type")

        for _ in range(2):
            found = await asyncio.gather(*(add(n) for n in range(20)))
            assert found == [(200, None), (409, "/problems/upstream-conflict")] * 10
        async with client.get("/api/getEventsByUserId/2") as reply:
            assert len(await reply.json()) == 10
        async with client.get("/readyz") as reply:
            assert (await reply.json())["status"] == "ok"


async def asked_to_do(url, statement):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement)


@pytest.fixture
async def sqlite(tmp_path):
    source = SqliteEvents(f"sqlite:///{tmp_path}/events.db")
    await source.open()
    await source.import_data(*checked(USERS, EVENTS))
    yield source
    await source.close()


async def test_a_list_that_nobody_waits_for_is_not_read_to_its_end(sqlite, tmp_path):
    with apsw.Connection(str(tmp_path / "events.db")) as connection:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
            " INSERT INTO events (id, user_id, place, title, description)"
            " SELECT 'many' || i, '2', i, 'title', 'description' FROM n"
        )
    began = time.perf_counter()
    assert len(await sqlite.events()) == 300_001
    whole = time.perf_counter() - began

    began = time.perf_counter()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(whole / 20):
            await sqlite.events()
    # It comes after the other in the same thread.
    assert await sqlite.count() == 300_003
    assert time.perf_counter() - began < whole / 2


async def test_a_lock_of_another_program_delays_a_new_event_and_loses_none(start: Start, tmp_path):
    url = f"sqlite:///{tmp_path}/events.db"
    source = SqliteEvents(url)
    await source.open()
    await source.import_data(*checked(USERS, EVENTS))
    await source.close()
    async with start(upstream_url=url, upstream_timeout=0.3) as client:

        async def add():
            headers = {"Idempotency-Key": "k"}
            event = {"userId": "1", "title": "Standup"}
            async with client.post("/api/addEvent", json=event, headers=headers) as reply:
                return reply.status, await reply.json()

        with apsw.Connection(str(tmp_path / "events.db")) as other:
            assert other.in_transaction
            other.execute("UPDATE users SET name = 'Mallory' WHERE id = '2'")
            status, problem = await add()
            assert (status, problem["type"]) == (504, "/problems/upstream-timeout")
            async with client.get("/api/getEventsByUserId/1") as reply:
                assert reply.status == 200
        status, added = await add()
        assert status == 200
        async with client.get("/api/getEventsByUserId/1") as reply:
            assert [event["id"] for event in await reply.json()] == ["11", added["id"]]


async def test_a_full_disk_is_a_failure_and_no_event_is_said_to_be_stored(tmp_path):
    def full(connection):
        connection.pragma("max_page_count", 1)  # no more than there are

    url = f"sqlite:///{tmp_path}/events.db"
    source = SqliteEvents(url)
    await source.open()
    await source.import_data(*checked(USERS, EVENTS))
    await source.close()
    source = SqliteEvents(url)
    stored: list[str] = []

    async def fill():
        large = NewEvent("1", "t" * 200, "d" * 2_000)
        while True:
            key = f"new-{len(stored)}"
            stored.append(await source.add_event(large, event_id=key, idempotency_key=key))

    apsw.connection_hooks.append(full)
    try:
        with pytest.raises(UpstreamFailed) as told:
            await fill()
        assert "full" in told.value.reason
        with pytest.raises(UserNotFound):
            await source.user("nobody")
        assert [event.id for event in await source.events_of("1")] == ["11", *stored]
    finally:
        apsw.connection_hooks.remove(full)
        await source.close()

"""What order and durability rest on in PostgreSQL: which locks are taken when, and how commits."""

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest
from msgspec.structs import astuple

from event_service.outbox.records import NEW_COLUMNS, Outcome, State, Step, Then

from .stores import Database, entry

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(postgres_url):
    async with Database(postgres_url).store() as store:
        yield store


@asynccontextmanager
async def holding_the_lane(url, user_id):
    """A transaction of another worker that has the lane, and is committed at the end."""
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("UPDATE lane SET tail = tail + 1 WHERE user_id = %s", [user_id])
        yield other


async def until_it_waits(url):
    """Until a transaction in this database waits for another's lock."""
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        while True:
            found = await connection.execute(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if await found.fetchone():
                return
            await asyncio.sleep(0.01)


async def is_locked(url, user_id):
    async with await psycopg.AsyncConnection.connect(url) as connection:
        try:
            await connection.execute(
                "SELECT 1 FROM lane WHERE user_id = %s FOR UPDATE NOWAIT", [user_id]
            )
        except psycopg.errors.LockNotAvailable:
            return True
        return False


async def test_the_place_of_an_event_is_drawn_once_its_lane_is_held(store, postgres_url):
    """Or what commits first might come second."""
    await store.accept([entry("u")])
    first, second = entry("u"), entry("u")
    async with holding_the_lane(postgres_url, "u") as other:
        accepting = asyncio.create_task(store.accept([second]))
        await until_it_waits(postgres_url)
        marks = ", ".join(["%s"] * len(first.__struct_fields__))
        await other.execute(
            f"INSERT INTO outbox ({NEW_COLUMNS}, state, accepted_at, give_up_at)"
            f" VALUES ({marks}, 'queued', 0, 1e12)".encode(),
            astuple(first),
        )
    await accepting
    (claim,) = await store.claim("me", 1)
    assert [each.id for each in claim.queued][1:] == [first.id, second.id]


@pytest.mark.parametrize("write", ["accept", "advance"])
async def test_lanes_are_taken_in_one_order_whatever_the_order_of_the_batch(
    store, postgres_url, write
):
    """Or two workers might each wait for what the other has."""
    await store.accept([entry("a"), entry("b")])
    claims = {claim.user_id: claim for claim in await store.claim("me", 2)}
    async with holding_the_lane(postgres_url, "b"):
        if write == "accept":
            writing = store.accept([entry("b"), entry("a")])
        else:
            writing = store.advance(
                [Step(user, claims[user].token, claims[user].seen, Then.KEEP) for user in "ba"]
            )
        task = asyncio.create_task(writing)
        await until_it_waits(postgres_url)
        assert await is_locked(postgres_url, "a")
    await task


async def test_what_is_written_is_on_disk_whatever_the_servers_default(store, postgres_url):
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        found = await connection.execute("SHOW synchronous_commit")
        assert await found.fetchone() == ("off",)
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF current_setting('synchronous_commit') <> 'on' THEN"
            " RAISE 'not durable'; END IF; RETURN new; END $$"
        )
        for table in ("lane", "outbox"):
            await connection.execute(
                f"CREATE TRIGGER durable BEFORE INSERT OR UPDATE ON {table}"
                " FOR EACH ROW EXECUTE FUNCTION refuse()".encode()
            )
    new = entry("u")
    await store.accept([new])
    (claim,) = await store.claim("me", 1)
    done = Outcome(claim.queued[0].seq, State.REFUSED)
    await store.advance([Step("u", claim.token, claim.seen, Then.LEAVE, done)])
    assert await store.retry(new.id)

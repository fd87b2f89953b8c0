"""What any source of events promises, held by each of them: HTTP, SQLite and PostgreSQL."""

import asyncio

import pytest

from event_service.errors import IdempotencyKeyReused, UpstreamNotFound, UserNotFound
from event_service.models import Event, NewEvent, User
from event_service.sources.data_file import checked
from event_service.sources.postgres_events import PostgresEvents
from event_service.sources.sqlite_events import SqliteEvents

pytestmark = pytest.mark.anyio

LONGEST = "x" * 128
USERS = [
    User("1", "Alice Johnson", ["102", "101"]),
    User("2", 'Bob O\'Neil "quoted" % \U0001f600', []),
    User("it's;--", "hostile", ["a'b", "a&b=c+d"]),
    User(LONGEST, "longest", [LONGEST]),
]
EVENTS = [
    Event("101", "1", "Team breakfast", "Coffee"),
    Event("102", "1", "Release review", ""),
    Event("a'b", "it's;--", "'; DROP TABLE users; --", "\U0001f600 \\ % _ \n"),
    Event("a&b=c+d", "it's;--", "t", ""),
    Event(LONGEST, LONGEST, "t" * 200, "d" * 2_000),
]


async def sqlite(tmp_path, _request):
    source = SqliteEvents(f"sqlite:///{tmp_path}/events.db")
    await source.open()
    return source


async def postgres(_tmp_path, request):
    url = request.getfixturevalue("postgres_url")
    source = PostgresEvents(url, connections=4, timeout=5.0)
    await source.open()
    return source


@pytest.fixture(params=[sqlite, postgres])
async def database(request, tmp_path):
    source = await request.param(tmp_path, request)
    try:
        await source.import_data(*checked(USERS, EVENTS))
        yield source
    finally:
        await source.close()


def new(user="1", title="Standup", description=None):
    return NewEvent(user, title, description)


async def test_lists_hold_everybody_and_everything_in_their_order(database):
    assert await database.users() == USERS
    assert await database.events() == EVENTS


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.id[:9])
async def test_a_user_and_its_events_are_found_in_the_users_order(database, user):
    assert await database.user(user.id) == user
    assert [event.id for event in await database.events_of(user.id)] == user.events


async def test_an_event_is_found_by_its_id(database):
    assert [await database.event(event.id) for event in EVENTS] == EVENTS


@pytest.mark.parametrize("unknown", ["99", "1'", "%", "1 OR 1=1", "'", "x" * 127])
async def test_what_is_not_there_is_not_found(database, unknown):
    with pytest.raises(UserNotFound):
        await database.user(unknown)
    with pytest.raises(UserNotFound):
        await database.events_of(unknown)
    with pytest.raises(UpstreamNotFound):
        await database.event(unknown)
    with pytest.raises(UserNotFound):
        await database.add_event(new(unknown), event_id="n", idempotency_key="k")


async def test_an_event_that_is_added_comes_last(database):
    added = await database.add_event(new(), event_id="new", idempotency_key="key")

    assert added == "new"
    assert [event.id for event in await database.events_of("1")] == ["102", "101", "new"]
    assert (await database.events())[-1] == Event("new", "1", "Standup", "")
    assert (await database.user("1")).events == ["102", "101", "new"]


async def test_the_same_key_and_event_is_stored_once(database):
    ids = await asyncio.gather(
        *(database.add_event(new(), event_id=f"new-{n}", idempotency_key="key") for n in range(20))
    )

    assert len(set(ids)) == 1
    assert len(await database.events_of("1")) == 3
    # A description of nothing is none.
    again = await database.add_event(new(description=""), event_id="later", idempotency_key="key")
    assert again == ids[0]


@pytest.mark.parametrize("other", [new(title="Other"), new(user="2"), new(description="More")])
async def test_the_same_key_with_another_event_is_refused(database, other):
    await database.add_event(new(), event_id="new", idempotency_key="key")

    with pytest.raises(IdempotencyKeyReused):
        await database.add_event(other, event_id="other", idempotency_key="key")

    assert len(await database.events()) == len(EVENTS) + 1


async def test_one_refused_event_takes_no_other_along(database):
    results = await asyncio.gather(
        *(
            database.add_event(
                new("1" if n % 2 else "nobody"), event_id=f"new-{n}", idempotency_key=f"key-{n}"
            )
            for n in range(40)
        ),
        return_exceptions=True,
    )

    assert [isinstance(result, UserNotFound) for result in results] == [True, False] * 20
    assert len(await database.events_of("1")) == 2 + 20


async def test_a_second_import_replaces_and_adds(database):
    users = [User("1", "Alice Smith", ["101", "102"]), User("5", "New", [])]
    events = [Event("101", "1", "Moved", ""), EVENTS[1]]
    await database.import_data(*checked(users, events))

    assert await database.user("1") == users[0]
    assert (await database.event("101")).title == "Moved"
    assert len(await database.users()) == len(USERS) + 1


async def test_a_migration_that_is_there_is_not_made_again(database):
    assert await database.migrate() == []

"""What any source of events promises, held by each of them: HTTP, SQLite and PostgreSQL."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_service.errors import (
    IdempotencyKeyReused,
    UpstreamNotFound,
    UpstreamRejected,
    UserNotFound,
)
from event_service.models import Event, NewEvent, User
from event_service.problems import problem_for
from event_service.sources.data_file import checked
from event_service.sources.guarded import GuardedEvents, operations_of

from ..unit.sources.guards import policies  # noqa: TID252  of all the service's tests
from .event_sources import DATABASES, SOURCES

pytestmark = pytest.mark.anyio

LONGEST = "x" * 128
PUNCTUATION = "-._~!$&'()*+,;=:@"
USERS = [
    User("1", "Alice Johnson", ["102", "101"]),
    User("2", 'Bob O\'Neil "quoted" % \U0001f600 \u202e', []),
    User("it's;--", "hostile", ["a'b", "a&b=c+d", "$1", ":name", "..."]),
    User(PUNCTUATION, "", [PUNCTUATION + "2"]),
    User(LONGEST, "n" * 10_000, [LONGEST]),
]
# In the order of the users' lists: only there all sources agree.
EVENTS = [
    Event("102", "1", "Release review", ""),
    Event("101", "1", "Team breakfast", "Coffee"),
    Event("a'b", "it's;--", "'; DROP TABLE users; --", "\U0001f600 \\ % _ \n\t\x01\x7f"),
    Event("a&b=c+d", "it's;--", "%s %(name)s {} ? $1", ""),
    Event("$1", "it's;--", '"', "\\u0000 \\x00"),
    Event(":name", "it's;--", "\u2028", ""),
    Event("...", "it's;--", "e\u0301 \ufeff", ""),
    Event(PUNCTUATION + "2", PUNCTUATION, "\U0010ffff", ""),
    Event(LONGEST, LONGEST, "t" * 200, "d" * 2_000),
]
# What no path may hold is asked for by nobody who came through the service; it must be harmless.
NO_IDS = [
    "%",
    "%27",
    "1 OR 1=1",
    "1/../2",
    "1?x=2",
    "1#",
    "a\0b",
    "\0",
    "\U0001f600",
    "é",
    "x" * 129,
]


@pytest.fixture(params=SOURCES, ids=lambda each: each.__name__)
def holding(request):
    return request.param(request)


@pytest.fixture
async def source(holding):
    async with holding(USERS, EVENTS) as source:
        yield source


@pytest.fixture(params=DATABASES, ids=lambda each: each.__name__)
async def database(request):
    async with request.param(request)(USERS, EVENTS) as database:
        yield database


def guarded(source):
    """The source as the service sees it: all of a user's events, however many calls they take."""
    return GuardedEvents(source, policies(operations=operations_of(source)))


def new(user="1", title="Standup", description=None):
    return NewEvent(user, title, description)


async def ids_of(source, user_id):
    return [event.id for event in await guarded(source).events_of(user_id)]


async def test_lists_hold_everybody_and_everything_in_their_order(source):
    assert await source.users() == USERS
    assert await source.events() == EVENTS


async def test_a_user_and_its_events_are_found_in_the_users_order(source):
    for user in USERS:
        assert await source.user(user.id) == user
        expected = [event for event in EVENTS if event.userId == user.id]
        assert await guarded(source).events_of(user.id) == expected
        partial = await guarded(source).partial_events_of(user.id)
        assert (partial.events, partial.errors) == (expected, [])


async def test_each_of_many_who_read_at_once_gets_its_own(source):
    service = guarded(source)
    ids = [user.id for user in USERS] + ["nobody"]
    found = await asyncio.gather(
        *(service.events_of(user_id) for user_id in ids * 10), return_exceptions=True
    )

    for user_id, events in zip(ids * 10, found, strict=True):
        if user_id == "nobody":
            assert isinstance(events, UserNotFound)
        else:
            assert events == [event for event in EVENTS if event.userId == user_id]


async def test_an_event_is_found_by_its_id(source):
    assert [await source.event(event.id) for event in EVENTS] == EVENTS


async def test_what_is_not_there_is_not_found(source):
    for unknown in ("99", "1'", "x" * 127, "A" * 128, *NO_IDS):
        with pytest.raises(UserNotFound):
            await source.user(unknown)
        with pytest.raises(UserNotFound):
            await guarded(source).events_of(unknown)
        with pytest.raises(UpstreamNotFound):
            await source.event(unknown)
        with pytest.raises(UserNotFound):
            await source.add_event(new(unknown), event_id="n", idempotency_key="k")
    assert await source.events() == EVENTS


async def test_an_event_that_is_added_comes_last_of_its_users(source):
    added = await source.add_event(new(), event_id="new", idempotency_key="key")

    assert added == "new"
    assert await ids_of(source, "1") == ["102", "101", "new"]
    assert await source.event("new") == Event("new", "1", "Standup", "")
    assert Event("new", "1", "Standup", "") in await source.events()
    assert (await source.user("1")).events == ["102", "101", "new"]


async def test_any_text_is_stored_as_it_is(source):
    for n, event in enumerate(EVENTS):
        added = NewEvent(event.userId, event.title, event.description)
        await source.add_event(added, event_id=f"new-{n}", idempotency_key=event.id)

        expected = Event(f"new-{n}", event.userId, event.title, event.description)
        assert await source.event(f"new-{n}") == expected


async def test_the_same_key_and_event_is_stored_once(source):
    ids = await asyncio.gather(
        *(source.add_event(new(), event_id="new", idempotency_key="key") for _ in range(20))
    )

    assert ids == ["new"] * 20
    assert await ids_of(source, "1") == ["102", "101", "new"]
    # A description of nothing is none.
    again = await source.add_event(new(description=""), event_id="new", idempotency_key="key")
    assert again == "new"


@pytest.mark.parametrize("other", [new(title="Other"), new(user="2"), new(description="More")])
async def test_the_same_key_with_another_event_is_refused(source, other):
    await source.add_event(new(), event_id="new", idempotency_key="key")

    # The events API says no more than that it refuses it.
    with pytest.raises((IdempotencyKeyReused, UpstreamRejected)) as refused:
        await source.add_event(other, event_id="new", idempotency_key="key")

    assert problem_for(refused.value).row.status == 422
    assert len(await source.events()) == len(EVENTS) + 1


async def test_one_refused_event_takes_no_other_along(source):
    results = await asyncio.gather(
        *(
            source.add_event(
                new("1" if n % 2 else "nobody"), event_id=f"new-{n}", idempotency_key=f"key-{n}"
            )
            for n in range(40)
        ),
        return_exceptions=True,
    )

    assert [isinstance(result, UserNotFound) for result in results] == [True, False] * 20
    assert len(await ids_of(source, "1")) == 2 + 20


STEP = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("12x"), st.sampled_from("ab"), st.integers(0, 4)),
    st.tuples(st.just("read"), st.sampled_from("12x")),
    st.tuples(st.just("list"), st.just("")),
)
FEW_USERS = [User("1", "Alice", ["11", "12"]), User("2", "Bob", [])]
FEW_EVENTS = [Event("11", "1", "Breakfast", "Rolls"), Event("12", "1", "Review", "")]


@settings(
    max_examples=20,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, max_size=12))
@pytest.mark.slow
async def test_any_sequence_gives_what_a_model_in_memory_gives(holding, steps):
    model = Model()
    async with holding(FEW_USERS, FEW_EVENTS) as source:
        for kind, user, *rest in steps:
            if kind == "read":
                found = await outcome(ids_of(source, user))
                assert found == model.lists.get(user, "UserNotFound")
            elif kind == "list":
                assert {each.id: each.events for each in await source.users()} == model.lists
                assert {each.id: each.title for each in await source.events()} == model.titles
            else:
                title, number = rest
                adding = source.add_event(
                    NewEvent(user, title),
                    event_id=f"new-{number}",
                    idempotency_key=f"key-{number}",
                )
                assert await outcome(adding) == model.add(user, title, f"new-{number}")


class Model:
    """Each key belongs to one event id here, as in the service."""

    def __init__(self):
        self.lists = {user.id: list(user.events) for user in FEW_USERS}
        self.titles = {event.id: event.title for event in FEW_EVENTS}
        self._added = {}

    def add(self, user, title, event_id):
        if event_id in self._added:
            return event_id if self._added[event_id] == (user, title) else "another event"
        if user not in self.lists:
            return "UserNotFound"
        self._added[event_id] = (user, title)
        self.lists[user].append(event_id)
        self.titles[event_id] = title
        return event_id


async def outcome(work):
    try:
        return await work
    except (IdempotencyKeyReused, UpstreamRejected):
        return "another event"
    except UserNotFound:
        return "UserNotFound"


async def test_in_a_database_a_key_outlives_the_id_that_it_came_with(database):
    """Two versions of the service may make the id in two ways."""
    ids = await asyncio.gather(
        *(database.add_event(new(), event_id=f"new-{n}", idempotency_key="key") for n in range(20))
    )
    again = await database.add_event(new(description=""), event_id="later", idempotency_key="key")

    assert set(ids) == {again}
    assert len(await database.events()) == len(EVENTS) + 1


async def test_a_second_import_replaces_and_adds(database):
    users = [User("1", "Alice Smith", ["101", "102"]), User("5", "New", [])]
    events = [Event("101", "1", "Moved", ""), EVENTS[0]]
    await database.import_data(*checked(users, events))

    assert await database.user("1") == users[0]
    assert (await database.event("101")).title == "Moved"
    assert len(await database.users()) == len(USERS) + 1


async def test_an_import_that_breaks_off_leaves_what_was_there(database):
    def breaking():
        yield from checked([User("1", "Mallory", [])], []).users
        raise ValueError("breaks off")

    with pytest.raises(ValueError, match="breaks off"):
        await database.import_data(breaking(), iter(()))

    assert await database.users() == USERS
    await database.add_event(new(), event_id="new", idempotency_key="key")


async def test_everything_is_read_as_one_moment_had_it(database):
    found = []
    async for record in database.everything():
        if not found:
            await database.add_event(new(), event_id="late", idempotency_key="key")
        found.append(record)

    assert found == [*USERS, *EVENTS]
    assert await database.count() == len(found) + 1


async def test_a_migration_that_is_there_is_not_made_again(database):
    assert await database.migrate() == []

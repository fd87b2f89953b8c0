import tracemalloc
from itertools import islice

import pytest

from mock_upstream.data import Event, GeneratedData, SampleData, User
from mock_upstream.store import Store


def test_the_sample_users_are_alice_bob_and_carla():
    users = list(Store(SampleData()).users())

    assert users == [
        User("1", "Alice Johnson", ["101", "102"]),
        User("2", "Bob Anderson", []),
        User("3", "Carla Mendez", ["103"]),
    ]


def test_every_event_is_listed_by_the_user_it_names():
    for data in (SampleData(), GeneratedData(3, 4, seed=1)):
        store = Store(data)
        listed = [(event_id, user.id) for user in store.users() for event_id in user.events]

        assert listed == [(event.id, event.user_id) for event in store.events()]


def test_the_same_seed_generates_the_same_data():
    first, again = (list(Store(GeneratedData(20, 5, seed=7)).events()) for _ in range(2))

    assert first == again
    assert len(first) == 100


def test_another_seed_generates_other_names_and_titles():
    one, other = (Store(GeneratedData(20, 5, seed=seed)) for seed in (1, 2))

    assert list(one.users()) != list(other.users())
    assert list(one.events()) != list(other.events())


def test_a_million_events_take_next_to_no_memory():
    tracemalloc.start()
    try:
        store = Store(GeneratedData(1000, 1000, seed=0))
        last = store.event("1000-1000")
        first_ten_thousand = sum(1 for _ in islice(store.events(), 10_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert last is not None
    assert first_ten_thousand == 10_000
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "event_id", ["", "1", "1-", "-1", "0-1", "1-0", "01-1", "1-01", "4-1", "1-6", "1-1-1", "٣-1"]
)
def test_an_id_spelled_otherwise_than_ours_is_unknown(event_id):
    assert GeneratedData(3, 5, seed=0).event(event_id) is None


@pytest.mark.parametrize("user_id", ["", "0", "4", "01", "x", "٣", "9" * 5000])
def test_a_user_outside_the_range_is_unknown(user_id):
    assert GeneratedData(3, 5, seed=0).user(user_id) is None


def test_an_added_event_is_last_in_its_users_list():
    store = Store(SampleData())
    event = Event("x", "3", "Concert", "")

    store.add(event)

    assert store.event("x") == event
    assert store.user("3") == User("3", "Carla Mendez", ["103", "x"])
    assert event in list(store.events())


def test_only_the_latest_added_events_are_kept():
    store = Store(SampleData(), max_added=2)

    for name in ("a", "b", "c"):
        store.add(Event(name, "2", "Concert", ""))

    assert store.event("a") is None
    assert store.user("2") == User("2", "Bob Anderson", ["b", "c"])


def test_events_can_be_listed_while_the_oldest_added_one_goes():
    store = Store(SampleData(), max_added=2)
    store.add(Event("a", "1", "Concert", ""))
    store.add(Event("b", "1", "Concert", ""))
    listing = store.events()
    next(listing)

    store.add(Event("c", "1", "Concert", ""))

    assert [event.id for event in listing] == ["102", "b", "103"]


def test_clearing_forgets_what_was_added_and_nothing_else():
    store = Store(SampleData())
    store.add(Event("x", "2", "Concert", ""))

    store.clear()

    assert list(store.users()) == list(Store(SampleData()).users())
    assert store.event("x") is None

from itertools import count, product
from uuid import UUID

import pytest

from event_service.services.event_identity import EventIdentity, identify


def fresh():
    numbers = count(1)
    return lambda: f"new-{next(numbers)}"


def test_without_a_clients_key_every_call_is_a_new_event():
    new_id = fresh()

    made = [identify("1", client_key=None, api_key=None, new_id=new_id) for _ in range(2)]

    assert made == [EventIdentity("new-1", "new-1"), EventIdentity("new-2", "new-2")]


def test_the_same_key_of_the_same_client_is_the_same_event_for_good():
    # The value itself: another release must give a retry the id of the first try.
    identity = identify("1", client_key="k", api_key=None, new_id=fresh())

    assert identity == EventIdentity("1b5eafb7-944f-5f4b-b5c6-c647e64c69cb", "k")
    assert UUID(identity.event_id).version == 5


@pytest.mark.parametrize("api_key", ["", "alice's"])
def test_where_clients_are_told_apart_the_upstreams_key_is_the_id(api_key):
    identity = identify("1", client_key="k", api_key=api_key, new_id=fresh())

    assert identity.idempotency_key == identity.event_id != "k"


def test_another_client_user_or_key_is_another_event():
    parts = ["a", "b", "ab", "a,b", '"', 'a"b']
    made = {
        identify(user_id, client_key=key, api_key=api_key, new_id=fresh()).event_id
        for user_id, key, api_key in product(parts, parts, [None, *parts])
    }

    assert len(made) == len(parts) * len(parts) * (len(parts) + 1)


def test_a_client_that_sent_no_api_key_keeps_its_ids_when_one_is_asked_for():
    without, unsent = (
        identify("1", client_key="k", api_key=api_key, new_id=fresh()) for api_key in (None, "")
    )

    assert without.event_id == unsent.event_id

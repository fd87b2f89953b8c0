import io
import json

import aiohttp
import pytest

from mock_upstream import run_mock
from mock_upstream.add_event import AddEvent
from mock_upstream.cycle import Cycle
from mock_upstream.data import SampleData
from mock_upstream.store import Store

BODY = json.dumps({"userId": "2", "title": "Concert"}).encode()


def new_event(**fields):
    return json.dumps({"userId": "2", "title": "Concert", **fields}).encode()


@pytest.fixture
def store():
    return Store(SampleData())


@pytest.fixture
def add(store):
    return AddEvent(store, Cycle(accept=5, refuse=10))


def statuses(add, calls):
    return [add(BODY, None).status for _ in range(calls)]


def test_it_accepts_five_then_refuses_ten_and_so_on_round(add):
    assert statuses(add, 32) == [*[200] * 5, *[503] * 10] * 2 + [200] * 2


def test_a_refusal_says_so(add):
    statuses(add, 5)

    status, outcome, event = add(BODY, None)

    assert event is None
    assert (status, outcome.success, outcome.id) == (503, False, None)
    assert outcome.message


@pytest.mark.parametrize("accept", [0, 5])
def test_with_nothing_to_refuse_it_never_does(store, accept):
    assert statuses(AddEvent(store, Cycle(accept=accept, refuse=0)), 30) == [200] * 30


def test_with_nothing_to_accept_it_always_refuses(store):
    assert statuses(AddEvent(store, Cycle(accept=0, refuse=1)), 30) == [503] * 30


def test_a_new_cycle_begins_with_its_first_call(add):
    statuses(add, 4)

    add.set_cycle(Cycle(accept=2, refuse=1))

    assert statuses(add, 4) == [200, 200, 503, 200]


def test_refusals_end_with_the_outage_however_few_there_were(store):
    now = 0.0
    add = AddEvent(store, Cycle(accept=2, refuse=5, outage=10.0), clock=lambda: now)
    assert statuses(add, 4) == [200, 200, 503, 503]

    now = 9.9
    assert statuses(add, 1) == [503]
    now = 10.0
    assert statuses(add, 3) == [200, 200, 503]
    now = 19.9
    assert statuses(add, 1) == [503]
    now = 20.0
    assert statuses(add, 1) == [200]


def test_an_outage_does_not_outlast_the_number_of_refusals(store):
    add = AddEvent(store, Cycle(accept=1, refuse=2, outage=10.0), clock=lambda: 0.0)

    assert statuses(add, 7) == [200, 503, 503, 200, 503, 503, 200]


def test_an_upstream_that_accepts_nothing_does_not_by_way_of_an_outage(store):
    now = 0.0
    add = AddEvent(store, Cycle(accept=0, refuse=3, outage=1.0), clock=lambda: now)

    assert statuses(add, 2) == [503] * 2
    now = 5.0
    assert statuses(add, 2) == [503] * 2


def test_a_stored_event_appears_with_its_user(add, store):
    outcome = add(new_event(id="mine", description="Bring a chair."), None).outcome

    event = store.event("mine")
    assert outcome.id == "mine"
    assert (event.user_id, event.title, event.description) == ("2", "Concert", "Bring a chair.")
    assert store.user("2").events == ["mine"]


def test_an_event_without_an_id_is_given_a_free_one(add, store):
    add(new_event(id="1001"), None)

    outcome = add(BODY, None).outcome

    assert outcome.id == "1002"
    assert store.user("2").events == ["1001", "1002"]


def test_a_key_seen_before_is_answered_as_before_and_stored_once(add, store):
    first = add(BODY, "key")
    statuses(add, 4)

    assert [add(BODY, "key") for _ in range(3)] == [first] * 3
    assert len(store.user("2").events) == 5


def test_a_repeated_key_does_not_move_the_cycle(add):
    for _ in range(7):
        add(BODY, "key")

    assert statuses(add, 5) == [200] * 4 + [503]


@pytest.mark.parametrize(
    "other", [{"title": "Theatre"}, {"userId": "1"}, {"description": "Bring a chair."}]
)
def test_a_key_with_another_event_is_refused_and_does_not_move_the_cycle(add, store, other):
    first = add(BODY, "key")

    again = [add(new_event(**other), "key") for _ in range(7)]

    assert [(answer.status, answer.event) for answer in again] == [(422, None)] * 7
    assert "Idempotency-Key" in again[0].outcome.message
    assert add(BODY, "key") == first
    assert statuses(add, 5) == [200] * 4 + [503]
    assert len(store.user("2").events) == 5


def test_a_key_with_the_same_event_written_otherwise_is_the_same(add):
    first = add(BODY, "key")

    assert add(b' { "title": "Concert", "description": "", "userId": "2" } ', "key") == first


def test_an_upstream_with_its_own_ids_ignores_ours(store):
    add = AddEvent(store, Cycle(accept=5, refuse=0), own_ids=True)

    assert [add(new_event(id="101"), None).outcome.id for _ in range(2)] == ["1001", "1002"]


def test_a_refused_key_may_be_tried_again(store):
    add = AddEvent(store, Cycle(accept=1, refuse=1))

    assert [add(BODY, key).status for key in ("a", "b", "b", "b")] == [200, 503, 200, 200]
    assert len(store.user("2").events) == 2


def test_a_reset_forgets_the_keys_and_begins_the_first_cycle(add, store):
    add.set_cycle(Cycle(accept=0, refuse=0))
    first = add(BODY, "key")

    add.reset()

    assert statuses(add, 4) == [200] * 4
    assert add(BODY, "key") != first
    assert statuses(add, 1) == [503]


def test_only_the_latest_keys_are_kept(store):
    add = AddEvent(store, Cycle(accept=1, refuse=0), max_keys=2)
    ids = [add(BODY, key).outcome.id for key in ("a", "b", "c")]

    assert [add(BODY, key).outcome.id for key in ("b", "c")] == ids[1:]
    assert add(BODY, "a").outcome.id not in ids


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 400),
        (b'{"title":"Concert"}', 400),
        (new_event(title=""), 400),
        (new_event(userId=2), 400),
        (new_event(id="../x"), 400),
        (new_event(id=".."), 400),
        (new_event(id="a%2Fb"), 400),
        (new_event(id="x" * 129), 400),
    ],
)
def test_a_wrong_request_is_told_so_and_does_not_move_the_cycle(add, body, status):
    for _ in range(7):
        answer, outcome, _ = add(body, None)
        assert (answer, outcome.success, bool(outcome.message)) == (status, False, True)

    assert statuses(add, 6) == [200] * 5 + [503]


@pytest.mark.parametrize(
    ("body", "status"), [(new_event(userId="9"), 404), (new_event(id="101"), 409)]
)
def test_an_overloaded_upstream_refuses_before_it_looks_at_the_content(add, body, status):
    answers = [add(body, None) for _ in range(6)]

    assert [answer.status for answer in answers] == [status] * 5 + [503]
    assert all(not a.outcome.success and a.outcome.message for a in answers)


@pytest.mark.anyio
async def test_over_http_it_stores_and_refuses(client):
    answers = []
    for _ in range(6):
        async with client.post("/addEvent", data=BODY) as response:
            answers.append((response.status, (await response.json())["success"]))
    async with client.get("/getUserById/2") as response:
        bob = await response.json()
    async with client.get(f"/getEventById/{bob['events'][0]}") as response:
        event = await response.json()

    assert answers == [(200, True)] * 5 + [(503, False)]
    assert len(bob["events"]) == 5
    assert event["title"] == "Concert"


@pytest.mark.anyio
async def test_over_http_the_idempotency_key_is_honoured(client, mock):
    ids = []
    for _ in range(2):
        async with client.post(
            "/addEvent", data=BODY, headers={"Idempotency-Key": "k-1"}
        ) as response:
            ids.append((await response.json())["id"])

    assert ids[0] == ids[1]
    assert [entry.idempotency_key for entry in mock.journal.entries] == ["k-1", "k-1"]


@pytest.mark.anyio
async def test_a_body_of_more_than_a_mebibyte_is_refused(client, mock):
    async with client.post("/addEvent", data=io.BytesIO(b" " * (1024**2 + 1))) as response:
        assert (response.status, (await response.json())["success"]) == (413, False)

    assert mock.journal.entries[-1].status == 413


@pytest.mark.anyio
async def test_the_cycle_can_be_chosen_at_the_start(anyio_backend):
    async with run_mock(accept=1, refuse=1) as mock, aiohttp.ClientSession(mock.url) as client:
        answers = []
        for _ in range(4):
            async with client.post("/addEvent", data=BODY) as response:
                answers.append(response.status)

    assert answers == [200, 503, 200, 503]

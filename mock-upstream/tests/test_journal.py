import asyncio
import time

import pytest

from mock_upstream.journal import Entry, Journal

pytestmark = pytest.mark.anyio


def entry(path="/getUsers", operation="getUsers"):
    return Entry(operation, "GET", path, 0.0, None, None, None)


def test_only_the_latest_entries_are_kept_and_all_are_counted():
    journal = Journal(("getUsers",), capacity=2)

    for path in ("/a", "/b", "/c"):
        one = entry(path)
        journal.begin(one)
        journal.end(one, 0.1)

    assert [one.path for one in journal.entries] == ["/b", "/c"]
    assert journal.counts == {"getUsers": 3}
    assert journal.max_in_flight == 1


def test_the_most_in_flight_is_remembered_when_fewer_are():
    journal = Journal(("getUsers",))
    calls = [entry() for _ in range(3)]

    for call in calls[:2]:
        journal.begin(call)
    for call in calls[:2]:
        journal.end(call, 0.1)
    journal.begin(calls[2])

    assert (journal.total.in_flight, journal.max_in_flight) == (1, 2)


def test_clearing_keeps_count_of_what_is_in_flight():
    journal = Journal(("getUsers",))
    first, second = entry(), entry()
    journal.begin(first)
    journal.begin(second)
    journal.end(first, 0.1)

    journal.clear()
    assert (journal.total.count, journal.total.in_flight, journal.max_in_flight) == (0, 1, 1)
    assert not journal.entries

    journal.end(second, 0.1)
    assert journal.total.in_flight == journal.operations["getUsers"].in_flight == 0


async def test_it_sees_the_most_in_flight_at_once(client, mock, eventually):
    mock.event_delay = 3600.0
    calls = [asyncio.create_task(client.get("/getEventById/101").__aenter__()) for _ in range(50)]
    await eventually(lambda: mock.journal.total.in_flight == 50)
    async with client.get("/getUsers"):
        pass
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await eventually(lambda: mock.journal.total.in_flight == 0)

    assert mock.journal.max_in_flight == 51
    assert mock.journal.operations["getEventById"].max_in_flight == 50
    assert mock.journal.operations["getUsers"].max_in_flight == 1


async def test_a_call_whose_client_left_has_a_duration_and_no_status(client, mock, eventually):
    mock.event_delay = 3600.0
    call = asyncio.create_task(client.get("/getEventById/101").__aenter__())
    await eventually(lambda: mock.journal.total.in_flight == 1)

    call.cancel()
    await eventually(lambda: mock.journal.total.in_flight == 0)

    (one,) = mock.journal.entries
    assert one.status is None
    assert one.duration is not None


async def test_an_entry_has_the_request_and_the_answer(client, mock):
    before = time.time()
    headers = {"traceparent": "00-a-b-01", "X-Request-ID": "r-1"}
    async with client.get("/getUserById/9?x=1", headers=headers):
        pass

    (one,) = mock.journal.entries
    assert (one.operation, one.method, one.path) == ("getUserById", "GET", "/getUserById/9?x=1")
    assert (one.status, one.fault) == (404, None)
    assert (one.traceparent, one.request_id, one.idempotency_key) == ("00-a-b-01", "r-1", None)
    assert before <= one.started <= time.time()
    assert one.duration >= 0

import aiohttp
import pytest

from mock_upstream import Fault, run_mock
from mock_upstream.journal import CAPACITY

pytestmark = pytest.mark.anyio


async def ask(client, method, path, json=None):
    async with client.request(method, path, json=json) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", ["/healthz", "/__admin/health"])
async def test_health_is_answered_and_not_journalled(client, mock, path):
    assert await ask(client, "GET", path) == (200, {"status": "ok"})
    assert not mock.journal.entries


@pytest.mark.parametrize("path", ["/__admin", "/__admin/"])
async def test_the_index_lists_every_path_with_its_methods(client, path):
    status, index = await ask(client, "GET", path)

    assert status == 200
    methods = {each["path"]: each["methods"] for each in index["paths"]}
    assert all(each["about"] for each in index["paths"])
    assert methods["/__admin/faults/addEvent"] == ["GET", "PUT", "DELETE"]
    assert methods["/__admin/reset"] == ["POST"]
    for path_, (first, *_) in methods.items():
        async with client.request(first, path_) as response:
            assert response.status == 200
    assert "slow-body" in index["fault"]["modes"]
    example = index["fault"]["example"]
    assert await ask(client, "PUT", "/__admin/faults/getUsers", example) == (200, example)


async def test_a_fault_can_be_put_read_and_deleted(client, mock):
    path = "/__admin/faults/getUsers"
    fault = {"delay": 0.5, "error_rate": 0.25, "status": 503}

    assert await ask(client, "PUT", path, fault) == (200, fault)
    assert await ask(client, "GET", path) == (200, fault)
    assert await ask(client, "GET", "/__admin/faults") == (200, {"getUsers": fault})
    assert mock.faults.get("getUsers") == Fault(delay=0.5, error_rate=0.25, status=503)
    assert await ask(client, "DELETE", path) == (200, {})
    assert await ask(client, "GET", path) == (200, {})


async def test_every_operation_takes_every_field_of_the_contract(client):
    fault = {
        "delay": 0.1,
        "jitter": 0.1,
        "error_rate": 1.0,
        "status": 503,
        "mode": "hang",
        "first_n": 3,
    }
    for operation in ("getUsers", "getUserById", "getEvents", "getEventById", "addEvent"):
        assert await ask(client, "PUT", f"/__admin/faults/{operation}", fault) == (200, fault)

    assert await ask(client, "DELETE", "/__admin/faults") == (200, {})
    assert await ask(client, "GET", "/__admin/faults") == (200, {})


async def test_putting_a_fault_replaces_the_one_before(client):
    path = "/__admin/faults/getUsers"
    await ask(client, "PUT", path, {"delay": 0.5})

    assert await ask(client, "PUT", path, {"mode": "reset"}) == (200, {"mode": "reset"})


async def test_a_wrong_fault_is_a_problem_that_names_the_field_and_changes_nothing(client, mock):
    async with client.put("/__admin/faults/getUsers", json={"delay": "soon"}) as response:
        problem = await response.json()

    assert response.status == 400
    assert response.content_type == "application/problem+json"
    assert (problem["status"], "$.delay" in problem["detail"]) == (400, True)
    assert mock.faults.active() == {}


async def test_a_fault_that_is_not_json_is_a_problem(client):
    async with client.put("/__admin/faults/getUsers", data=b"{") as response:
        assert response.status == 400


async def test_an_unknown_operation_is_404_and_told_the_known_ones(client):
    status, problem = await ask(client, "PUT", "/__admin/faults/getUser", {})

    assert status == 404
    assert "getUserById" in problem["detail"]


async def test_an_unknown_admin_path_is_404(client):
    status, _ = await ask(client, "GET", "/__admin/nope")

    assert status == 404


async def test_another_method_is_405_and_told_the_right_one(client):
    status, problem = await ask(client, "GET", "/__admin/reset")

    assert status == 405
    assert "POST" in problem["detail"]


async def test_the_journal_shows_calls_counts_and_most_in_flight(client):
    await ask(client, "GET", "/getUserById/1")
    await ask(client, "GET", "/getUserById/9")
    await ask(client, "GET", "/getUsers")

    status, journal = await ask(client, "GET", "/__admin/requests")

    assert status == 200
    assert [(call["operation"], call["status"]) for call in journal["requests"]] == [
        ("getUserById", 200),
        ("getUserById", 404),
        ("getUsers", 200),
    ]
    assert journal["counts"] == {
        "getUsers": 1,
        "getUserById": 2,
        "getEvents": 0,
        "getEventById": 0,
        "addEvent": 0,
    }
    assert (journal["in_flight"], journal["max_in_flight"]) == (0, 1)
    assert journal["operations"]["getUserById"] == {"count": 2, "in_flight": 0, "max_in_flight": 1}


async def test_the_journal_can_be_limited_to_the_latest_calls(client):
    for path in ("/getUsers", "/getEvents", "/getUserById/1"):
        await ask(client, "GET", path)

    _, two = await ask(client, "GET", "/__admin/requests?limit=2")
    _, none = await ask(client, "GET", "/__admin/requests?limit=0")
    status, _ = await ask(client, "GET", "/__admin/requests?limit=-1")

    assert [call["path"] for call in two["requests"]] == ["/getEvents", "/getUserById/1"]
    assert (none["requests"], none["counts"]["getUsers"]) == ([], 1)
    assert status == 400


async def test_a_full_journal_is_shown_whole(client, mock):
    await ask(client, "GET", "/getUsers")
    mock.journal.entries.extend([mock.journal.entries[0]] * CAPACITY)

    _, journal = await ask(client, "GET", "/__admin/requests")

    assert len(journal["requests"]) == CAPACITY


async def test_deleting_the_journal_leaves_faults_alone(client, mock):
    await ask(client, "GET", "/getUsers")
    mock.faults.set("getUsers", Fault(delay=0.1))

    status, journal = await ask(client, "DELETE", "/__admin/requests")

    assert (status, journal["requests"], journal["counts"]["getUsers"]) == (200, [], 0)
    assert "getUsers" in mock.faults.active()


async def test_the_cycle_can_be_changed(client):
    assert await ask(client, "GET", "/__admin/cycle") == (200, {"accept": 5, "refuse": 10})

    cycle = {"accept": 1, "refuse": 1}
    assert await ask(client, "PUT", "/__admin/cycle", cycle) == (200, cycle)

    new = {"userId": "2", "title": "Concert"}
    statuses = [(await ask(client, "POST", "/addEvent", new))[0] for _ in range(4)]
    assert statuses == [200, 503, 200, 503]


async def test_the_event_delay_can_be_changed(client, mock):
    delay = {"seconds": 0.2}
    assert await ask(client, "PUT", "/__admin/event-delay", delay) == (200, delay)
    assert await ask(client, "GET", "/__admin/event-delay") == (200, delay)

    await ask(client, "GET", "/getEventById/101")

    assert mock.journal.entries[-1].duration >= 0.19  # timers may be early by a millisecond


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("/__admin/cycle", {"accept": -1, "refuse": 1}),
        ("/__admin/cycle", {"accept": 1}),
        ("/__admin/event-delay", {"seconds": -1}),
        ("/__admin/event-delay", {"seconds": 1, "minutes": 1}),
    ],
)
async def test_wrong_settings_are_refused(client, path, settings):
    _, before = await ask(client, "GET", path)

    status, _ = await ask(client, "PUT", path, settings)

    assert status == 400
    assert await ask(client, "GET", path) == (200, before)


async def test_reset_goes_back_to_the_beginning(anyio_backend):
    new = {"userId": "2", "title": "Concert", "id": "x"}
    async with (
        run_mock(event_delay=0.1, accept=1, refuse=1) as mock,
        aiohttp.ClientSession(mock.url) as client,
    ):
        await ask(client, "POST", "/addEvent", new)
        await ask(client, "PUT", "/__admin/cycle", {"accept": 0, "refuse": 1})
        await ask(client, "PUT", "/__admin/event-delay", {"seconds": 9})
        await ask(client, "PUT", "/__admin/faults/getUsers", {"mode": "reset"})

        status, _ = await ask(client, "POST", "/__admin/reset")

        _, journal = await ask(client, "GET", "/__admin/requests")
        answers = [(await ask(client, "POST", "/addEvent", new))[0] for _ in range(2)]

    assert status == 200
    assert (journal["requests"], journal["counts"]["addEvent"]) == ([], 0)
    assert answers == [200, 503]
    assert mock.faults.active() == {}
    assert mock.event_delay == 0.1

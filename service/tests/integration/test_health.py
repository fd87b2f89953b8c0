import pytest

from mock_upstream import Fault, MockUpstream

from .conftest import Start

pytestmark = pytest.mark.anyio

BREAKERS = ("addEvent", "getUsers", "getUserById", "getEvents", "getEventById")


async def test_a_process_that_answers_is_alive(start: Start, mock: MockUpstream):
    mock.faults.set("getUsers", Fault(mode="hang"))
    async with start() as client:
        response = await client.get("/livez")
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    assert mock.journal.counts == dict.fromkeys(mock.journal.counts, 0)


async def test_a_service_whose_circuits_are_closed_is_ready(start: Start, mock: MockUpstream):
    async with start() as client:
        response = await client.get("/readyz")
        assert response.status == 200
        assert await response.json() == {
            "status": "ok",
            "breakers": dict.fromkeys(BREAKERS, "closed"),
        }
    assert mock.journal.counts == dict.fromkeys(mock.journal.counts, 0)


async def test_an_open_circuit_degrades_the_service_which_still_wants_its_traffic(
    start: Start, mock: MockUpstream
):
    mock.faults.set("addEvent", Fault(status=500))
    async with start(breaker_failures=1) as client:
        await client.post("/api/addEvent", json={"userId": "1", "title": "Standup"})
        response = await client.get("/readyz")

        assert response.status == 200
        assert await response.json() == {
            "status": "degraded",
            "breakers": dict.fromkeys(BREAKERS, "closed") | {"addEvent": "open"},
        }


async def test_health_is_for_everyone_to_read_and_for_nobody_to_cache(start: Start):
    async with start(env="production", ops_token="sesame-and-long-enough-to-be-one") as client:
        for path in ("/livez", "/readyz"):
            response = await client.get(path)
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert (await client.post(path)).status == 405

from contextlib import asynccontextmanager

import aiohttp
import pytest

from mock_upstream import run_mock

pytestmark = pytest.mark.anyio

NEW = {"id": "mine", "userId": "2", "title": "Concert", "description": "Bring a chair."}


@asynccontextmanager
async def speaking(dialect, **options):
    async with (
        run_mock(dialect=dialect, event_delay=0.0, **options) as mock,
        aiohttp.ClientSession(mock.url) as client,
    ):
        yield client


async def get(client, path):
    async with client.get(path) as response:
        assert response.status == 200
        return await response.json()


async def add(client, new=NEW):
    async with client.post("/addEvent", json=new) as response:
        return response.status, response.headers, await response.read()


async def test_rest_answers_a_write_with_what_it_created(anyio_backend):
    async with speaking("rest") as client:
        async with client.post("/events", json=NEW) as response:
            assert response.status == 201
            assert response.headers["Location"] == "/events/mine"
            assert await response.json() == NEW
        assert (await add(client, NEW | {"id": "other"}))[0] == 201
        assert (await add(client))[0] == 409


async def test_rest_has_the_paths_of_a_rest_api_beside_the_others(anyio_backend):
    async with speaking("rest") as client:
        for plain, rest in [
            ("/getUsers", "/users"),
            ("/getUserById/1", "/users/1"),
            ("/getEvents", "/events"),
            ("/getEventById/103", "/events/103"),
        ]:
            assert await get(client, plain) == await get(client, rest)
        events = await get(client, "/events?userId=1")
        journal = await get(client, "/__admin/requests")
        index = await get(client, "/")

    assert [event["id"] for event in events] == ["101", "102"]
    assert journal["counts"] == {
        "getUsers": 2,
        "getUserById": 2,
        "getEvents": 3,
        "getEventById": 2,
        "addEvent": 0,
    }
    assert {"operation": "addEvent", "method": "POST", "path": "/events"} in index["operations"]


async def test_rest_refuses_without_the_word_success(anyio_backend):
    async with speaking("rest", accept=0) as client:
        status, _, body = await add(client)

    assert status == 503
    assert b"success" not in body


async def test_nulls_has_null_for_what_is_empty(anyio_backend):
    async with speaking("nulls") as client:
        users = await get(client, "/getUsers")
        event = await get(client, "/getEventById/101")

    assert [user["events"] for user in users] == [["101", "102"], None, ["103"]]
    assert (event["title"], event["description"]) == ("Team breakfast", None)


async def test_nulls_answers_a_write_with_nothing(anyio_backend):
    async with speaking("nulls", accept=1) as client:
        status, _, body = await add(client)
        refused, _, reason = await add(client)
        bob = await get(client, "/getUserById/2")

    assert (status, body) == (204, b"")
    assert (refused, b'"success":false' in reason) == (503, True)
    assert bob["events"] == ["mine"]


async def test_numbers_has_numbers_as_ids_and_gives_its_own(anyio_backend):
    async with speaking("numbers", accept=1) as client:
        status, _, body = await add(client)
        refused, _, _ = await add(client)
        users = await get(client, "/getUsers")
        event = await get(client, "/getEventById/1001")

    assert (status, body, refused) == (200, b'{"success":true,"id":1001}', 503)
    assert [(user["id"], user["events"]) for user in users] == [
        (1, [101, 102]),
        (2, [1001]),
        (3, [103]),
    ]
    assert (event["id"], event["userId"]) == (1001, 2)


async def test_numbers_leaves_an_id_alone_that_is_not_spelled_like_a_number(anyio_backend):
    async with speaking("numbers", users=1, events_per_user=1) as client:
        assert (await get(client, "/getUserById/1"))["events"] == ["1-1"]

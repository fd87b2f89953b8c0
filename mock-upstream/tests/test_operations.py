import asyncio

import aiohttp
import pytest
from yarl import URL

from mock_upstream import run_mock
from mock_upstream.reply import PIECE

pytestmark = pytest.mark.anyio


async def get(client, path):
    async with client.get(path) as response:
        return response.status, await response.json()


async def test_get_users_lists_everybody_with_their_event_ids(client):
    assert await get(client, "/getUsers") == (
        200,
        [
            {"id": "1", "name": "Alice Johnson", "events": ["101", "102"]},
            {"id": "2", "name": "Bob Anderson", "events": []},
            {"id": "3", "name": "Carla Mendez", "events": ["103"]},
        ],
    )


async def test_get_user_by_id_finds_one(client):
    status, user = await get(client, "/getUserById/3")

    assert status == 200
    assert user == {"id": "3", "name": "Carla Mendez", "events": ["103"]}


async def test_get_events_lists_all(client):
    status, events = await get(client, "/getEvents")

    assert status == 200
    assert [(event["id"], event["userId"]) for event in events] == [
        ("101", "1"),
        ("102", "1"),
        ("103", "3"),
    ]


async def test_get_event_by_id_finds_one(client):
    status, event = await get(client, "/getEventById/103")

    assert status == 200
    assert event["userId"] == "3"
    assert set(event) == {"id", "userId", "title", "description"}


@pytest.mark.parametrize(
    "path", ["/getUserById/9", "/getEventById/9", "/getUserById/", "/getUserById/%2e%2e%2f1"]
)
async def test_an_unknown_id_is_404_in_json(client, path):
    status, answer = await get(client, path)

    assert status == 404
    assert "not found" in answer["message"]


@pytest.mark.parametrize(
    "path", ["/nope", "/users", "/getUsers/1", "/getUserById", "/getUserById/1/2"]
)
async def test_an_unknown_path_is_404_and_counts_for_no_operation(client, mock, path):
    status, _ = await get(client, path)

    assert status == 404
    assert [(entry.operation, entry.path) for entry in mock.journal.entries] == [(None, path)]
    assert set(mock.journal.counts.values()) == {0}


async def test_the_root_lists_what_there_is_and_is_not_journalled(client, mock):
    status, index = await get(client, "/")

    assert status == 200
    assert (index["name"], index["dialect"], index["admin"]) == (
        "mock-upstream",
        "plain",
        "/__admin",
    )
    listed = {(each["operation"], each["method"], each["path"]) for each in index["operations"]}
    assert listed == {
        ("getUsers", "GET", "/getUsers"),
        ("getUserById", "GET", "/getUserById/{id}"),
        ("getEvents", "GET", "/getEvents"),
        ("getEventById", "GET", "/getEventById/{id}"),
        ("addEvent", "POST", "/addEvent"),
    }
    assert not mock.journal.entries


async def test_events_can_be_asked_for_by_user(client):
    _, alices = await get(client, "/getEvents?userId=1")
    _, bobs = await get(client, "/getEvents?userId=2")
    _, nobodys = await get(client, "/getEvents?userId=9")

    assert [event["id"] for event in alices] == ["101", "102"]
    assert bobs == nobodys == []


async def test_an_escaped_id_is_decoded(client, mock):
    async with client.get(URL(f"{mock.url}/getUserById/%31", encoded=True)) as response:
        assert (response.status, (await response.json())["id"]) == (200, "1")


async def test_a_request_for_no_path_at_all_is_404(mock):
    host, port = mock.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 404 ")
    writer.close()


async def test_only_a_single_event_takes_the_event_delay(client, mock):
    mock.event_delay = 0.2
    for path in ("/getUsers", "/getUserById/1", "/getEvents", "/getEventById/101"):
        await get(client, path)

    slow = [entry.path for entry in mock.journal.entries if entry.duration > 0.15]

    assert slow == ["/getEventById/101"]


async def test_many_generated_users_are_served_whole(anyio_backend):
    async with run_mock(users=300, events_per_user=20) as mock, aiohttp.ClientSession() as client:
        _, users = await get(client, f"{mock.url}/getUsers")
        async with client.get(f"{mock.url}/getEvents") as response:
            assert response.headers["Transfer-Encoding"] == "chunked"
            body = await response.read()
            events = await response.json()

    assert len(body) > 2 * PIECE
    assert [user["id"] for user in users] == [str(number) for number in range(1, 301)]
    assert [event["id"] for event in events] == [name for user in users for name in user["events"]]

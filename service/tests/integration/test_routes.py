import pytest

from .conftest import Start

pytestmark = pytest.mark.anyio


async def test_get_users_lists_every_user_with_its_event_ids(start: Start):
    async with start() as client:
        response = await client.get("/api/getUsers")

        assert response.status == 200
        assert response.content_type == "application/json"
        assert (await response.json())[0] == {
            "id": "1",
            "name": "Alice Johnson",
            "events": ["101", "102"],
        }

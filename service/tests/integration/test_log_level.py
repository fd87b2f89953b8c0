import logging

import pytest

from .conftest import Start

pytestmark = pytest.mark.anyio

TOKEN = "sesame-and-long-enough-to-be-one"
LEVEL = "/ops/log-level"


@pytest.fixture(autouse=True)
def _root_level(monkeypatch):
    monkeypatch.setattr(logging.root, "level", logging.INFO)


async def test_the_level_can_be_read_and_changed(start: Start):
    async with start() as client:
        assert await (await client.get(LEVEL)).json() == {"level": "info"}
        response = await client.put(LEVEL, json={"level": "debug"})
        assert (response.status, await response.json()) == (200, {"level": "debug"})
        assert await (await client.get(LEVEL)).json() == {"level": "debug"}


@pytest.mark.parametrize(
    ("body", "status"),
    [({"level": "loud"}, 422), ({"level": "debug", "for": 60}, 422), ({}, 422), ("debug", 422)],
)
async def test_an_invalid_level_changes_nothing(start: Start, body, status):
    async with start() as client:
        assert (await client.put(LEVEL, json=body)).status == status
        assert await (await client.get(LEVEL)).json() == {"level": "info"}


async def test_a_form_of_another_site_cannot_change_it(start: Start):
    async with start() as client:
        assert (await client.put(LEVEL, data='{"level":"debug"}')).status == 415
        assert (await client.post(LEVEL, json={"level": "debug"})).status == 405
        assert logging.root.level == logging.INFO


async def test_in_production_it_is_for_those_with_the_token(start: Start):
    async with start(env="production", ops_token=TOKEN) as client:
        for path in (LEVEL, "/metrics"):
            assert (await client.get(path)).status == 401
            headers = {"Authorization": f"Bearer {TOKEN}"}
            assert (await client.get(path, headers=headers)).status == 200


async def test_in_production_without_a_token_there_is_nothing_for_operators(start: Start):
    async with start(env="production") as client:
        for path in (LEVEL, "/metrics"):
            assert (await client.get(path)).status == 404

from typing import Any

import pytest

from event_service.dashboard.operators import GUESSES

from .conftest import Start

pytestmark = pytest.mark.anyio

TOKEN = "the-operators-token"
PATHS = ["/metrics", "/ops/log-level", "/dashboard"]
PRODUCTION: dict[str, Any] = {"env": "production", "ops_token": TOKEN}


@pytest.mark.parametrize("path", PATHS)
async def test_in_production_the_token_opens_what_is_for_operators(start: Start, path: str):
    async with start(**PRODUCTION) as client:
        response = await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})

        assert response.status == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer "]
)
async def test_in_production_nothing_else_does(start: Start, path: str, authorization: str | None):
    async with start(**PRODUCTION) as client:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = await client.get(path, headers=headers)

        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in await response.text()


async def test_a_refusal_is_a_problem_like_any_other(start: Start):
    async with start(**PRODUCTION) as client, client.get("/metrics") as response:
        assert response.content_type == "application/problem+json"
        assert (await response.json())["type"] == "/problems/unauthorized"


@pytest.mark.parametrize("path", [*PATHS, "/dashboard/stream"])
async def test_in_production_without_a_token_there_is_nothing_for_operators(
    start: Start, path: str
):
    async with start(env="production") as client:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            assert (await client.get(path, headers=headers)).status == 404


@pytest.mark.parametrize("path", PATHS)
async def test_outside_of_production_it_is_open(start: Start, path: str):
    async with start(env="development") as client:
        assert (await client.get(path)).status == 200


async def test_probes_are_open_everywhere(start: Start):
    async with start(**PRODUCTION) as client:
        assert (await client.get("/livez")).status == 200
        assert (await client.get("/readyz")).status == 200


async def test_only_the_address_that_guesses_tokens_is_slowed_down(start: Start):
    """However the guesses are sent, and whatever address they claim to come from."""

    def comes_from(address: str, **headers: str) -> dict[str, str]:
        return {"X-Forwarded-For": address, **headers}

    now = 1_000.0
    settings = {**PRODUCTION, "trusted_proxies": ["127.0.0.0/8"]}
    async with start(**settings, app={"clock": lambda: now}) as client:
        statuses = []
        for number in range(GUESSES // 2):
            claimed = comes_from(f"198.51.100.{number}, 192.0.2.1")
            guess = {**claimed, "Authorization": f"Bearer {number}"}
            statuses.append((await client.get("/metrics", headers=guess)).status)
            response = await client.post(
                "/dashboard/session", headers=claimed, json={"token": f"guess {number}"}
            )
            statuses.append(response.status)
        token = {"Authorization": f"Bearer {TOKEN}"}
        refused = [
            await client.get("/metrics", headers=comes_from("192.0.2.1", **token)),
            await client.get("/dashboard", headers=comes_from("192.0.2.1", **token)),
            await client.post(
                "/dashboard/session", headers=comes_from("192.0.2.1"), json={"token": TOKEN}
            ),
        ]
        other = await client.get("/metrics", headers=comes_from("192.0.2.2", **token))
        api = await client.get("/api/getUsers", headers=comes_from("192.0.2.1"))
        now += 60
        later = await client.get("/metrics", headers=comes_from("192.0.2.1", **token))

    assert statuses == [401] * GUESSES
    assert [response.status for response in refused] == [429] * 3
    assert {response.headers["Retry-After"] for response in refused} == {"60"}
    assert (other.status, api.status, later.status) == (200, 200, 200)

import asyncio

import pytest

from event_service.models import User

from .conftest import Start
from .raw_http import eventually

pytestmark = pytest.mark.anyio


class SlowApi:
    """Answers when told to."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.go_on = asyncio.Event()

    async def users(self) -> list[User]:
        self.in_flight += 1
        try:
            await self.go_on.wait()
        finally:
            self.in_flight -= 1
        return []

    events = user = event = add_event = users

    async def is_busy_with(self, number: int) -> None:
        await eventually(lambda: self.in_flight == number)


async def test_requests_past_the_bound_are_refused_at_once_and_those_within_it_served(
    start: Start,
):
    api = SlowApi()
    async with start(max_in_flight=2, app={"api": api}) as client:
        within = [asyncio.create_task(client.get("/api/getUsers")) for _ in range(2)]
        await api.is_busy_with(2)

        refused = await client.get("/api/getEvents")

        assert refused.status == 503
        assert refused.content_type == "application/problem+json"
        assert (await refused.json())["type"] == "/problems/overloaded"
        assert int(refused.headers["Retry-After"]) >= 1
        api.go_on.set()
        assert [response.status for response in await asyncio.gather(*within)] == [200, 200]


async def test_operators_are_answered_while_load_is_shed(start: Start):
    api = SlowApi()
    async with start(max_in_flight=1, app={"api": api}) as client:
        within = asyncio.create_task(client.get("/api/getUsers"))
        await api.is_busy_with(1)

        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status == 200
        metrics = await (await client.get("/metrics")).text()

        api.go_on.set()
        await within
        assert "load_shed_total 0.0" in metrics
        assert (await client.get("/api/getUsers")).status == 200


async def test_what_was_shed_is_counted(start: Start):
    api = SlowApi()
    async with start(max_in_flight=1, app={"api": api}) as client:
        within = asyncio.create_task(client.get("/api/getUsers"))
        await api.is_busy_with(1)

        for _ in range(3):
            await client.get("/api/getUsers")

        assert "load_shed_total 3.0" in await (await client.get("/metrics")).text()
        api.go_on.set()
        await within


@pytest.mark.parametrize("leaves", ["with an error", "before its reply"])
async def test_every_request_that_ends_makes_room_for_another(start: Start, leaves: str):
    api = SlowApi()
    async with start(max_in_flight=1, app={"api": api}, request_deadline=0.2) as client:
        for _ in range(3):
            if leaves == "with an error":
                assert (await client.get("/api/getUsers")).status == 504
            else:
                task = asyncio.create_task(client.get("/api/getUsers"))
                await api.is_busy_with(1)
                task.cancel()
                await asyncio.wait([task])
                await api.is_busy_with(0)
        api.go_on.set()

        assert (await client.get("/api/getUsers")).status == 200

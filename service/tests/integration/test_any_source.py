"""Any source of events stands behind the same guards as the events API."""

import asyncio

import pytest

from event_service.errors import UpstreamFailed, UpstreamRefused, UserNotFound
from event_service.models import Event, NewEvent, User
from event_service.signals import RequestDone, Signals
from halfopen import State

from .conftest import Start
from .crowd import status_of, until
from .observed_service import observed, problem

pytestmark = pytest.mark.anyio


class Events:
    """A source in memory: Alice has two events."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def users(self) -> list[User]:
        return [await self.user("1")]

    async def user(self, user_id: str) -> User:
        self.calls.append(f"user {user_id}")
        if user_id != "1":
            raise UserNotFound(user_id)
        return User("1", "Alice", ["101", "102"])

    async def events(self) -> list[Event]:
        return [await self.event("101"), await self.event("102")]

    async def event(self, event_id: str) -> Event:
        self.calls.append(f"event {event_id}")
        return Event(event_id, "1", f"title {event_id}")

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        self.calls.append(f"add {event.title}")
        return event_id


class OneCall(Events):
    """It knows all events of a user in one call."""

    async def events_of(self, user_id: str) -> list[Event]:
        self.calls.append(f"events of {user_id}")
        if user_id != "1":
            raise UserNotFound(user_id)
        return [await self.event("102"), await self.event("101")]


class Failing(Events):
    async def users(self) -> list[User]:
        self.calls.append("users")
        raise UpstreamFailed("getUsers", "It failed.", reason="test")

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        self.calls.append("add")
        raise UpstreamFailed("addEvent", "It failed.", reason="test")


async def test_a_failing_source_is_retried_within_the_budget_and_then_left_alone():
    source = Failing()
    async with observed(source=source) as service:
        statuses = [await status_of(service.client, "/api/getUsers") for _ in range(100)]
        async with service.client.get("/readyz") as reply:
            ready = (reply.status, await reply.json())

    assert set(statuses) == {502, 503}
    assert statuses[-1] == 503
    assert len(source.calls) == 20
    assert len(service.heard.retries) > 5
    assert service.breakers["getUsers"].state is State.OPEN
    assert ready == (
        200,
        {
            "status": "degraded",
            "breakers": {
                "addEvent": "closed",
                "getUsers": "open",
                "getUserById": "closed",
                "getEvents": "closed",
                "getEventById": "closed",
            },
        },
    )


async def test_writes_to_a_failing_source_stop_at_the_third():
    source = Failing()
    new = {"userId": "1", "title": "Tea"}
    async with observed(source=source) as service:
        for wanted in ["upstream-error"] * 3 + ["circuit-open"] * 3:
            async with service.client.post("/api/addEvent", json=new) as reply:
                assert (await problem(reply))[1] == wanted

    assert source.calls == ["add"] * 3


async def test_a_source_that_breaks_in_its_own_way_opens_its_circuit_too(start: Start):
    class Broken(Events):
        async def users(self) -> list[User]:
            raise ZeroDivisionError

    async with observed(source=Broken(), single_flight=False) as service:
        statuses = [await status_of(service.client, "/api/getUsers") for _ in range(25)]

    assert statuses == [500] * 20 + [503] * 5


async def test_a_users_events_are_one_guarded_call_where_the_source_knows_them():
    source = OneCall()
    async with observed(source=source) as service:
        async with service.client.get("/api/getEventsByUserId/1") as reply:
            ids = [event["id"] for event in await reply.json()]
        async with service.client.get("/api/getEventsByUserId/1?partial=true") as reply:
            partial = await reply.json()
        assert await status_of(service.client, "/api/getEventsByUserId/9") == 404
        outcomes = service.heard.calls
        states = service.breakers["getEventsByUserId"].state

    assert ids == ["102", "101"], "in the order of the source"
    assert [event["id"] for event in partial["events"]] == ["102", "101"]
    assert (partial["errors"], partial["partial"]) == ([], False)
    assert outcomes == [
        *[("getEventsByUserId", "ok")] * 2,
        ("getEventsByUserId", "not_found"),
    ]
    assert states is State.CLOSED


async def test_elsewhere_the_user_is_read_and_then_each_event():
    class SecondRefused(Events):
        async def event(self, event_id: str) -> Event:
            if event_id == "102":
                raise UpstreamRefused("getEventById", "No.", reason="test")
            return await super().event(event_id)

    async with observed(source=SecondRefused()) as service:
        async with service.client.get("/api/getEventsByUserId/1?partial=true") as reply:
            partial = await reply.json()
        assert await status_of(service.client, "/api/getEventsByUserId/1") == 502

    assert [event["id"] for event in partial["events"]] == ["101"]
    assert [error["id"] for error in partial["errors"]] == ["102"]


async def test_a_source_that_hangs_is_given_up_in_time():
    class Hanging(Events):
        async def users(self) -> list[User]:
            return await asyncio.get_running_loop().create_future()

    async with (
        observed(
            source=Hanging(), upstream_timeout=0.1, request_deadline=30, retry_attempts=1
        ) as service,
        service.client.get("/api/getUsers") as reply,
    ):
        assert (await problem(reply))[:2] == (504, "upstream-timeout")

    assert service.heard.calls == [("getUsers", "timeout")]
    assert service.of("getUsers") == ["failure"]


async def test_after_a_write_nobody_reads_what_was_begun_before_it():
    class Slow(OneCall):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def events_of(self, user_id: str) -> list[Event]:
            self.calls.append(f"events of {user_id}")
            await self.go_on.wait()
            return []

    source = Slow()
    path = "/api/getEventsByUserId/1"
    async with observed(source=source) as service:
        before = asyncio.create_task(status_of(service.client, path))
        await until(lambda: source.calls == ["events of 1"])
        async with service.client.post(
            "/api/addEvent", json={"userId": "1", "title": "Tea"}
        ) as reply:
            assert reply.status == 200
        after = asyncio.create_task(status_of(service.client, path))
        await until(lambda: source.calls == ["events of 1", "add Tea", "events of 1"])
        source.go_on.set()

        assert [await before, await after] == [200, 200]


async def test_a_listener_that_raises_harms_nobody(start: Start):
    class Raises:
        def listen(self, signals: Signals) -> None:
            signals.on(RequestDone, self._raise)

        def _raise(self, _signal: RequestDone) -> None:
            raise KeyError("an operation that it does not know")

    async with start(app={"listeners": [Raises()]}) as client:
        for _ in range(2):
            assert await status_of(client, "/api/getUsers") == 200

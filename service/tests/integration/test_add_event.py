import asyncio

import pytest

from mock_upstream import Fault, MockUpstream

from .crowd import until
from .observed_service import ObservedService, observed, problem
from .scripted_upstream import replies, scripted

pytestmark = pytest.mark.anyio

NEW = {"userId": "1", "title": "Tea"}


async def add(
    service: ObservedService,
    key: str | None = None,
    new: dict[str, str] = NEW,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, object]]:
    headers = {**(headers or {}), **({} if key is None else {"Idempotency-Key": key})}
    async with service.client.post("/api/addEvent", json=new, headers=headers) as reply:
        return reply.status, await reply.json(content_type=None)


async def test_an_added_event_is_in_the_users_list_under_the_id_of_the_reply(mock: MockUpstream):
    async with observed(upstream_url=mock.url) as service:
        status, body = await add(service)

        assert (status, body["success"]) == (200, True)
        user = mock.store.user("1")
        assert user is not None
        assert body["id"] in user.events


@pytest.mark.parametrize("key", ["a", "!~'\"(){};,<>=[]", "x" * 255, "0", "UPPER-lower_1.2"])
async def test_a_clients_key_reaches_the_upstream_unchanged(mock: MockUpstream, key: str):
    async with observed(upstream_url=mock.url) as service:
        assert (await add(service, key))[0] == 200

        assert [entry.idempotency_key for entry in mock.journal.entries] == [key]


async def test_a_second_try_with_the_same_key_gets_the_first_id_and_stores_nothing(
    mock: MockUpstream,
):
    async with observed(upstream_url=mock.url) as service:
        first, second = await add(service, "mine"), await add(service, "mine")

        assert first == second
        user = mock.store.user("1")
        assert user is not None
        assert len(user.events) == 3


async def test_the_body_of_a_second_try_is_the_same_byte_for_byte():
    async with (
        scripted(replies(b'{"success":true}')) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        (_, first), (_, second) = await add(service, "mine"), await add(service, "mine")

        assert first == second
        assert upstream.calls[0].body == upstream.calls[1].body
        assert {call.headers["idempotency-key"] for call in upstream.calls} == {"mine"}


async def test_two_clients_with_keys_of_the_same_name_do_not_meet(mock: MockUpstream):
    async with observed(upstream_url=mock.url, api_key_header="X-Api-Key") as service:
        added = [
            await add(service, "1", {**NEW, "title": title}, {"X-Api-Key": client})
            for client, title in [("alice", "Tea"), ("bob", "Cake"), ("alice", "Tea")]
        ]

        assert [status for status, _ in added] == [200, 200, 200]
        first, other, again = (body["id"] for _, body in added)
        assert first == again != other
        assert [entry.idempotency_key for entry in mock.journal.entries] == [first, other, first]


async def test_a_client_may_retry_after_a_broken_connection(mock: MockUpstream):
    mock.faults.set("addEvent", Fault(mode="truncate", first_n=1))
    async with observed(upstream_url=mock.url) as service:
        assert (await add(service, "mine"))[0] == 502
        status, body = await add(service, "mine")

        assert status == 200
        user = mock.store.user("1")
        assert user is not None
        assert user.events[2:] == [body["id"]]


async def test_events_without_a_key_of_the_client_are_two(mock: MockUpstream):
    async with observed(upstream_url=mock.url) as service:
        (_, first), (_, second) = await add(service), await add(service)

        assert first["id"] != second["id"]
        first_key, second_key = (entry.idempotency_key for entry in mock.journal.entries)
        assert (first_key, second_key) == (first["id"], second["id"])


@pytest.mark.parametrize(
    ("reply", "told"),
    [(b'{"success":true,"id":"../9"}', "../9"), (b'{"id":5}', "5"), (b'{"id":"\xc3\xa9"}', "é")],
)
async def test_the_upstreams_id_is_told_as_it_is(reply: bytes, told: str):
    async with (
        scripted(replies(reply, status="201 Created")) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        status, body = await add(service)

        assert (status, body) == (200, {"success": True, "id": told})


@pytest.mark.parametrize("reply", [b'{"success":true}', b"", b"created"])
async def test_an_upstream_that_names_no_id_took_ours(reply: bytes):
    async with (
        scripted(replies(reply)) as upstream,
        observed(upstream_url=upstream.url) as service,
    ):
        status, body = await add(service)

        assert status == 200
        assert body["id"] == upstream.calls[0].headers["idempotency-key"]


async def test_writes_are_never_shared(mock: MockUpstream):
    mock.faults.set("addEvent", Fault(delay=0.1))
    async with observed(upstream_url=mock.url) as service:
        async with service.client.post("/api/addEvent", json=NEW) as first:
            await first.read()
        async with service.client.post("/api/addEvent", json=NEW) as second:
            await second.read()

        assert mock.journal.counts["addEvent"] == 2


async def test_an_open_circuit_fails_fast_and_says_when_to_come_back(mock: MockUpstream):
    mock.faults.set("addEvent", Fault(status=503))
    async with observed(upstream_url=mock.url) as service:
        assert [(await add(service))[0] for _ in range(3)] == [503] * 3
        async with service.client.post("/api/addEvent", json=NEW) as reply:
            status, slug, members = await problem(reply)

        assert (status, slug, members["breaker"]) == (503, "circuit-open", "addEvent")
        assert reply.headers["Retry-After"] == "10"
        assert mock.journal.counts["addEvent"] == 3


@pytest.mark.parametrize("other", [{**NEW, "title": "Coffee"}, {**NEW, "userId": "2"}])
async def test_a_key_that_is_under_way_with_another_body_is_refused(
    mock: MockUpstream, other: dict[str, str]
):
    mock.faults.set("addEvent", Fault(delay=0.5))
    async with observed(upstream_url=mock.url) as service:
        first = asyncio.create_task(add(service, "mine"))
        await until(lambda: mock.journal.counts["addEvent"] == 1)
        status, members = await add(service, "mine", other)

        assert (status, members["type"]) == (422, "/problems/idempotency-key-reused")
        assert (await first)[0] == 200
        assert mock.journal.counts["addEvent"] == 1

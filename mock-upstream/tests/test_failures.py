"""Every fault as a client sees it on the wire."""

import asyncio
import json
import zlib
from contextlib import asynccontextmanager

import pytest

from mock_upstream import Fault
from mock_upstream.failures import GARBAGE, OVERSIZE

pytestmark = pytest.mark.anyio

ALICE = b'{"id":"1","name":"Alice Johnson","events":["101","102"]}'


@asynccontextmanager
async def asking(mock, target="GET /getUserById/1", body=b""):
    host, port = mock.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    head = f"{target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(20):
            yield reader
    finally:
        writer.close()


async def until_reset(reader):
    received = b""
    try:
        while piece := await reader.read(65536):
            received += piece
    except ConnectionResetError:
        return received
    pytest.fail("the connection ended in good order")


async def test_a_status_is_answered_with_its_headers_and_body(client, mock):
    fault = Fault(status=429, headers={"Retry-After": "7", "content-type": "text/x"}, body="slow!")
    mock.faults.set("getUsers", fault)

    async with client.get("/getUsers") as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "7"
        assert response.headers.getall("Content-Type") == ["text/x"]
        assert await response.text() == "slow!"


async def test_an_error_without_a_status_is_500(client, mock):
    mock.faults.set("getUsers", Fault(error_rate=1.0))

    async with client.get("/getUsers") as response:
        assert response.status == 500
        assert response.content_type == "application/json"
        assert (await response.json())["message"]


async def test_a_body_alone_is_a_200_of_the_wrong_shape(client, mock):
    mock.faults.set("getUserById", Fault(body="null"))

    async with client.get("/getUserById/1") as response:
        assert (response.status, await response.text()) == (200, "null")


async def test_a_redirect_is_a_status_and_a_header(client, mock):
    mock.faults.set("getUsers", Fault(status=302, headers={"Location": "/getEvents"}))

    async with client.get("/getUsers", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/getEvents")


async def test_a_delay_comes_before_the_good_answer(client, mock):
    mock.faults.set("getUserById", Fault(delay=0.2))

    async with client.get("/getUserById/1") as response:
        assert await response.read() == ALICE

    assert mock.journal.entries[-1].duration > 0.19  # timers are exact to a millisecond


async def test_a_fault_of_one_operation_spares_the_others(client, mock):
    mock.faults.set("getUsers", Fault(status=500))

    async with client.get("/getEvents") as response:
        assert response.status == 200


async def test_reset_ends_the_connection_before_any_byte(mock):
    mock.faults.set("getUserById", Fault(mode="reset"))

    async with asking(mock) as reader:
        assert await until_reset(reader) == b""


@pytest.mark.parametrize(
    ("after", "headers_end", "received"),
    [("half-headers", False, b""), ("headers", True, b""), ("half-body", True, ALICE[:28])],
)
async def test_reset_can_strike_later(mock, after, headers_end, received):
    mock.faults.set("getUserById", Fault(mode="reset", after=after))

    async with asking(mock) as reader:
        answer = await until_reset(reader)

    head, end, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (bool(end), body) == (headers_end, received)


async def test_hang_answers_nothing_until_the_client_leaves(mock, eventually):
    mock.faults.set("getUserById", Fault(mode="hang"))

    async with asking(mock) as reader:
        await eventually(lambda: mock.journal.total.in_flight == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        assert mock.journal.total.in_flight == 1

    await eventually(lambda: mock.journal.total.in_flight == 0)
    (entry,) = mock.journal.entries
    assert (entry.status, entry.fault) == (None, "hang")


async def test_hang_can_strike_after_the_headers(mock):
    mock.faults.set("getUserById", Fault(mode="hang", after="headers"))

    async with asking(mock) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)

    assert f"Content-Length: {len(ALICE)}\r\n".encode() in head


async def test_garbage_is_not_http(mock):
    mock.faults.set("getUserById", Fault(mode="garbage"))

    async with asking(mock) as reader:
        assert await reader.read() == GARBAGE


async def test_truncate_promises_more_than_it_sends(mock):
    mock.faults.set("getUserById", Fault(mode="truncate"))

    async with asking(mock) as reader:
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert f"Content-Length: {len(ALICE)}".encode() in head
    assert body == ALICE[: len(ALICE) // 2]


async def test_truncate_takes_a_status_that_has_no_name(mock):
    mock.faults.set("getUserById", Fault(mode="truncate", status=299))

    async with asking(mock) as reader:
        assert (await reader.read()).startswith(b"HTTP/1.1 299 \r\n")


async def test_an_event_may_be_stored_although_its_answer_was_cut(mock):
    mock.faults.set("addEvent", Fault(mode="truncate"))
    new = json.dumps({"id": "x", "userId": "2", "title": "Concert"}).encode()

    async with asking(mock, "POST /addEvent", new) as reader:
        await reader.read()

    assert mock.store.user("2").events == ["x"]


async def test_a_reset_call_does_not_take_place(mock):
    mock.faults.set("addEvent", Fault(mode="reset"))
    new = json.dumps({"id": "x", "userId": "2", "title": "Concert"}).encode()

    async with asking(mock, "POST /addEvent", new) as reader:
        await until_reset(reader)

    assert mock.store.event("x") is None


@pytest.mark.parametrize("status", [200, 204, 500])
async def test_empty_has_no_body(client, mock, status):
    mock.faults.set("getUsers", Fault(mode="empty", status=status))

    async with client.get("/getUsers") as response:
        assert (response.status, await response.read()) == (status, b"")


async def test_slow_body_sends_one_byte_after_the_other(mock):
    mock.faults.set("getUserById", Fault(mode="slow-body", body="abc"))

    async with asking(mock) as reader:
        await reader.readuntil(b"\r\n\r\n")
        pieces = [await reader.read(100) for _ in range(3)]

    assert pieces == [b"a", b"b", b"c"]


async def test_slow_body_is_the_good_answer_in_the_end(client, mock, monkeypatch):
    monkeypatch.setattr("mock_upstream.failures.SLOW_BODY_PAUSE", 0.0)
    mock.faults.set("getUserById", Fault(mode="slow-body"))

    async with client.get("/getUserById/1") as response:
        assert (response.status, await response.read()) == (200, ALICE)


async def test_oversize_is_valid_json_of_64_mebibytes(client, mock):
    mock.faults.set("getUserById", Fault(mode="oversize"))
    first = last = b""
    size = 0

    async with client.get("/getUserById/1") as response:
        assert "Content-Length" not in response.headers
        async for piece in response.content.iter_any():
            first = first or piece[:1]
            last = piece[-1:]
            size += len(piece)

    assert (first, last, size) == (b"[", b"]", OVERSIZE + 2)
    assert size > 16 * 1024**2


async def test_oversize_can_come_compressed(mock):
    mock.faults.set("getUserById", Fault(mode="oversize", headers={"Content-Encoding": "gzip"}))
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = packed = 0

    async with asking(mock) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        while (length := int(await reader.readline(), 16)) > 0:
            packed += length
            unpacked += len(unpacker.decompress(await reader.readexactly(length)))
            await reader.readline()

    assert b"Content-Encoding: gzip\r\n" in head
    assert unpacked == OVERSIZE + 2
    assert packed < unpacked / 100


async def test_a_fault_for_the_first_call_spares_the_second(client, mock):
    mock.faults.set("getUsers", Fault(status=503, first_n=1))
    statuses = []
    for _ in range(2):
        async with client.get("/getUsers") as response:
            statuses.append(response.status)

    assert statuses == [503, 200]
    assert [entry.fault for entry in mock.journal.entries] == ["status", None]

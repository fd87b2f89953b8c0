"""Replies at random: whole, mangled, cut, glued; more of them in `make fuzz`."""

import os
import random

import pytest

from event_service.libs.http_client import HttpClientError

from .test_replies import MALFORMED, REPLIES
from .wires import Wire

pytestmark = pytest.mark.anyio

COUNT = int(os.environ.get("FUZZED_REPLIES", "3000"))
SEEDS = [data for data, *_ in REPLIES.values()]
SEEDS += [data for data in MALFORMED.values() if len(data) < 1000]
PARTS = [b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\xff", b": ", b"0\r\n\r\n", b"Content-Length: 3\r\n",
         b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"HTTP/1.1 200 OK\r\n",
         b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Encoding: gzip\r\n", b"fff\r\n"]  # fmt: skip


def mangled(chance):
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(5)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
            case 1:
                data[at:at] = chance.choice(PARTS)
            case 2:
                del data[at : at + chance.randrange(1, 20)]
            case _:
                data += chance.choice(SEEDS)
    return bytes(data)


def pieces(data, chance):
    while data:
        size = chance.choice((1, 2, 7, len(data)))
        yield data[:size]
        data = data[size:]


async def test_whatever_comes_is_a_reply_or_an_error_of_ours():
    chance = random.Random(os.environ.get("FUZZ_SEED", "event"))
    for _ in range(COUNT):
        data = mangled(chance)
        wire = Wire(max_body=1000)
        wire.receive(*pieces(data, chance))
        if not wire.connection.gone:
            wire.connection.eof_received()
            wire.lose()
        try:
            status, body = await wire.result()
        except HttpClientError as exc:
            assert len(str(exc)) < 200, data  # noqa: PT017 - whichever error it is
        else:
            assert 200 <= status <= 999, data
            assert len(body) <= 1000, data
        # Told of its end once, after at most one reply that left it usable.
        assert wire.owner.told in (["gone"], ["free", "gone"]), data

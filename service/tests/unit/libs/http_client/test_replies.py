"""What a reply is made of, byte by byte."""

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.http_client import Broken, Malformed, Progress, TimedOut, TooLarge

from .wires import Wire

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

# name: the reply, its status, its body, and whether the connection may serve another call
REPLIES = {
    "a length": (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello", True),
    "a chunk's extension": (CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', 200, b"hello", True),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", 200, b"hello", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "204 that names a length": (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", 204, b"", True),
    "304 that names a length": (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "interim replies": (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\nContent-Length: 9\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nTransfer-Encoding: gzip\r\n\r\n"
        b"HTTP/1.1 199 Odd\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        True,
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "an unknown status": (b"HTTP/1.1 799 X\r\nContent-Length: 1\r\n\r\nx", 799, b"x", True),
    "a length with a space behind": (OK + b"Content-Length:  5 \r\n\r\nhello", 200, b"hello", True),
    "an old version": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
    "an old version that stays": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        True,
    ),
    "a last reply": (
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        False,
    ),
    "an offer to upgrade": (
        OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        True,
    ),
    "gzip": (
        OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzip.compress(b"hello")), gzip.compress(b"hello")),
        200,
        b"hello",
        True,
    ),
    "deflate": (
        OK + b"Content-Encoding: deflate\r\nContent-Length: 13\r\n\r\n" + zlib.compress(b"hello"),
        200,
        b"hello",
        True,
    ),
}
each_reply = pytest.mark.parametrize(
    ("data", "status", "body", "stays"), REPLIES.values(), ids=REPLIES.keys()
)


@each_reply
async def test_a_reply_is_read_however_it_is_cut_in_two(data, status, body, stays):
    for cut in range(len(data) + 1):
        wire = Wire()
        wire.receive(*filter(None, (data[:cut], data[cut:])))
        assert await wire.result() == (status, body), cut
        assert wire.owner.told == ["free" if stays else "gone"], cut
        assert wire.connection.usable is stays


@each_reply
async def test_a_reply_is_read_when_each_byte_comes_alone(data, status, body, stays):
    wire = Wire()
    wire.receive(*(data[at : at + 1] for at in range(len(data))))
    assert await wire.result() == (status, body)
    assert wire.owner.told == ["free" if stays else "gone"]


@given(reply=st.sampled_from(list(REPLIES.values())), cuts=st.sets(st.integers(1, 300)))
async def test_a_reply_is_read_however_it_is_cut(reply, cuts):
    data, status, body, stays = reply
    ends = [*sorted(cut for cut in cuts if cut < len(data)), len(data)]
    wire = Wire()
    begin = 0
    for end in ends:
        wire.receive(data[begin:end])
        begin = end
    assert await wire.result() == (status, body)
    assert wire.owner.told == ["free" if stays else "gone"]


@each_reply
async def test_a_reply_cut_off_before_its_end_is_broken(data, status, body, stays):
    for cut in range(len(data)):
        wire = Wire()
        if cut:
            wire.receive(data[:cut])
        wire.lose()
        with pytest.raises(Broken) as caught:
            await wire.result()
        assert caught.value.progress is (Progress.REPLYING if cut else Progress.SENT)
        assert wire.owner.told == ["gone"]


async def test_a_reply_without_a_length_ends_with_its_connection():
    wire = Wire()
    wire.receive(OK + b"\r\nhel", b"lo")
    await wire.reply.head()
    assert not wire.reply.complete
    wire.lose()
    assert await wire.result() == (200, b"hello")
    assert wire.owner.told == ["gone"]


async def test_a_reply_without_a_length_that_is_reset_is_broken():
    wire = Wire()
    wire.receive(OK + b"\r\nhello")
    wire.lose(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(Broken, match="reset by peer"):
        await wire.result()


MALFORMED = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "another version": b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "an upgrade nobody asked for": b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "an upgrade without a protocol": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a length that is a list": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "a length that is letters": OK + b"Content-Length: abc\r\n\r\nok",
    "a length N,N,N": OK + b"Content-Length: 2,2,2\r\n\r\nok",
    "a length of another script": OK + "Content-Length: é\r\n\r\nok".encode(),
    "a length in the scientific way": OK + b"Content-Length: 1e3\r\n\r\nok",
    "a length with a sign": OK + b"Content-Length: +2\r\n\r\nok",
    "a length below zero": OK + b"Content-Length: -2\r\n\r\nok",
    "a length that is empty": OK + b"Content-Length: \r\n\r\nok",
    "a length that no body has": OK + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a length beside chunks": OK
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks beside a length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks beside no length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: abc\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks beside a length in the scientific way": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 1e3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks in two fields": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks of something packed": OK
    + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "packed for the way": OK + b"Transfer-Encoding: gzip\r\n\r\nok",
    "an unknown coding for the way": OK + b"Transfer-Encoding: x\r\n\r\nok",
    "a chunk without a size": CHUNKED + b"zz\r\n",
    "a chunk below zero": CHUNKED + b"-1\r\n",
    "a chunk that no memory holds": CHUNKED + b"fffffffffffffffff\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\nokk\r\n0\r\n\r\n",
    "a bare LF after a chunk's size": CHUNKED + b"2\nok\r\n0\r\n\r\n",
    "a folded field": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a folded first field": OK + b" X: a\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": OK + b"X : a\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"Content-Length 0\r\n\r\n",
    "no name": OK + b": a\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": OK + b"X\x00: a\r\nContent-Length: 0\r\n\r\n",
    "a bare LF after a field": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "a bare CR in a field": OK + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "bare LFs only": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "257 fields": OK + b"A: b\r\n" * 256 + b"Content-Length: 0\r\n\r\n",
    "a head too long": OK + b"A: " + b"b" * 65_536 + b"\r\nContent-Length: 0\r\n\r\n",
    "a head too long in many fields": OK
    + b"".join(b"A%d: %b\r\n" % (n, b"b" * 1000) for n in range(70))
    + b"Content-Length: 0\r\n\r\n",
    "a head without end": OK + b"A: " + b"b" * 200_000,
    "a reason without end": b"HTTP/1.1 200 " + b"b" * 200_000,
    "interim replies without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 8_000,
    "a chunk's extension without end": CHUNKED + b"2;" + b"a" * 400_000,
    "a chunk's extensions again and again": CHUNKED + (b"1;" + b"a" * 900 + b"\r\nx\r\n") * 400,
    "trailers without end": CHUNKED + b"0\r\n" + b"A: b\r\n" * 100_000,
}
each_malformation = pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())


@each_malformation
@pytest.mark.parametrize("size", [1 << 18, 4096, 1])
async def test_an_invalid_reply_is_malformed_and_ends_the_connection(data, size):
    wire = Wire()
    if size == 1 and len(data) > 5_000:
        size = 97
    wire.receive(*(data[at : at + size] for at in range(0, len(data), size)))
    with pytest.raises(Malformed) as caught:
        await wire.result()
    assert caught.value.progress is Progress.REPLYING
    assert wire.transport.aborted
    assert wire.owner.told == ["gone"]


@each_malformation
async def test_no_error_repeats_what_the_peer_sent(data):
    wire = Wire()
    wire.receive(data.replace(b"ok", b"secret"))
    with pytest.raises(Malformed) as caught:
        await wire.result()
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 100


async def test_256_fields_of_nearly_64_kib_are_a_reply():
    fields = b"".join(b"A%d: %b\r\n" % (n, b"b" * 240) for n in range(255))
    wire = Wire()
    wire.receive(OK + fields + b"Content-Length: 2\r\n\r\nok")
    assert await wire.result() == (200, b"ok")
    assert len(wire.reply.headers) == 256


async def test_a_large_body_in_the_first_packet_is_not_a_long_head():
    wire = Wire()
    wire.receive(OK + b"Content-Length: 200000\r\n\r\n" + bytes(200_000))
    assert await wire.result() == (200, bytes(200_000))


async def test_small_chunks_are_a_body_however_many():
    wire = Wire()
    wire.receive(CHUNKED)
    for _ in range(1000):
        wire.receive(b"1\r\nx\r\n" * 100)
    wire.receive(b"0\r\n\r\n")
    assert await wire.result() == (200, b"x" * 100_000)


async def test_a_body_of_eight_times_the_length_takes_about_eight_times_as_long():
    """Copied anew for each piece, it would be 64 times."""

    async def reading(size: int) -> float:
        wire = Wire(max_body=size)
        began = time.process_time()
        wire.receive(OK + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(PIECE)):
            wire.receive(PIECE)
        assert len((await wire.result())[1]) == size
        return time.process_time() - began

    short = min([await reading(2**20) for _ in range(3)])
    long = min([await reading(2**23) for _ in range(3)])
    assert long < 24 * short


PIECE = b"x" * 4096


@pytest.mark.parametrize("surplus", [b"x", OK + b"Content-Length: 2\r\n\r\nhi", b"\x00", b"HTTP"])
@pytest.mark.parametrize("split", [True, False])
async def test_bytes_after_a_reply_end_the_connection_and_nothing_else(surplus, split):
    wire = Wire()
    reply = OK + b"Content-Length: 2\r\n\r\nok"
    wire.receive(*((reply, surplus) if split else (reply + surplus,)))
    assert await wire.result() == (200, b"ok")
    assert not wire.connection.usable
    assert wire.transport.aborted


async def test_bytes_on_an_idle_connection_end_it():
    wire = Wire()
    wire.receive(OK + b"Content-Length: 0\r\n\r\n")
    wire.receive(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
    assert wire.owner.told == ["free", "gone"]
    assert wire.transport.aborted


async def test_the_end_of_an_idle_connection_is_noticed_at_once():
    wire = Wire()
    wire.receive(OK + b"Content-Length: 0\r\n\r\n")
    wire.connection.eof_received()
    assert not wire.connection.usable
    wire.lose()
    assert wire.owner.told == ["free", "gone"]


async def test_a_connection_serves_one_call_after_the_other():
    wire = Wire()
    for body in (b"one", b"two", b"three"):
        wire.receive(OK + b"X: %b\r\nContent-Length: %d\r\n\r\n%b" % (body, len(body), body))
        assert await wire.result() == (200, body)
        assert wire.reply.header(b"x") == body.decode()
        assert wire.reply.reused is (body != b"one")
        wire.send()


async def test_trailers_are_no_header_fields():
    wire = Wire()
    wire.receive(CHUNKED + b"2\r\nok\r\n0\r\nContent-Encoding: gzip\r\nX: y\r\n\r\n")
    assert await wire.result() == (200, b"ok")
    assert wire.reply.header(b"x") == ""


async def test_fields_of_one_name_are_joined_and_of_any_case():
    wire = Wire()
    wire.receive(OK + b"X-A: 1 \r\nx-a: 2\r\nContent-Length: 0\r\n\r\n")
    await wire.result()
    assert wire.reply.header(b"x-a") == "1, 2"
    assert wire.reply.header(b"x-b") == ""


async def test_a_request_not_sent_to_its_end_ends_the_connection_with_the_reply():
    wire = Wire()
    wire.transport.unsent = 1
    wire.receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert (await wire.result())[0] == 413
    assert wire.owner.told == ["gone"]


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 11\r\n\r\n",
        OK + b"Content-Length: 11\r\n\r\nhello",
        OK + b"Content-Length: 11\r\n\r\nhello world",
        CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n",
        CHUNKED + b"b\r\nhello world\r\nb\r\nhello",
        OK + b"\r\nhello world",
    ],
)
async def test_a_body_longer_than_allowed_is_too_large(data):
    wire = Wire(max_body=10)
    wire.receive(data)
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        await wire.result()
    assert wire.owner.told != []


async def test_a_body_of_the_allowed_length_is_read():
    wire = Wire(max_body=10)
    wire.receive(OK + b"Content-Length: 10\r\n\r\n" + bytes(10))
    assert await wire.result() == (200, bytes(10))


async def test_nothing_is_read_ahead_of_who_does_not_take_the_body():
    wire = Wire()
    wire.receive(OK + b"Content-Length: 500000\r\n\r\n", bytes(65_536))
    assert wire.transport.reading
    wire.receive(bytes(1))
    assert not wire.transport.reading
    wire.reply.taken = False
    reading = wire.result()
    assert reading.send(None) is not None  # it waits
    assert wire.transport.reading
    reading.close()


async def test_a_status_is_known_before_its_body_ends():
    wire = Wire(max_body=10)
    wire.receive(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 1000000\r\n\r\n" + bytes(100))
    await wire.reply.head()
    assert wire.reply.status == 503


async def test_the_rest_of_a_short_reply_nobody_wants_is_thrown_away():
    wire = Wire(max_body=10)
    wire.receive(b"HTTP/1.1 404 Not Found\r\nContent-Length: 60000\r\n\r\n")
    await wire.reply.head()
    wire.reply.discard()
    wire.receive(bytes(30_000), bytes(30_000))
    assert wire.owner.told == ["free"]
    assert not wire.reply.body


async def test_the_rest_of_a_long_reply_nobody_wants_is_cut_off():
    wire = Wire()
    wire.receive(b"HTTP/1.1 404 Not Found\r\nContent-Length: 600000\r\n\r\n" + bytes(100_000))
    await wire.reply.head()
    assert not wire.transport.reading
    wire.reply.discard()
    assert wire.transport.reading
    wire.receive(bytes(60_000))
    assert wire.owner.told == []
    wire.receive(bytes(60_000))
    assert wire.owner.told == ["gone"]


async def test_a_reply_that_was_given_up_brings_nothing():
    wire = Wire()
    wire.reply.abandon()
    assert wire.transport.aborted
    with pytest.raises(Broken):
        await wire.reply.head()


@pytest.mark.parametrize(
    ("received", "words", "progress"),
    [
        (b"", "no byte of a reply", Progress.SENT),
        (b"HTTP/1.1", "the head", Progress.REPLYING),
        (OK + b"Content-Length: 5\r\n\r\nhell", "the body", Progress.REPLYING),
    ],
)
async def test_what_is_not_there_in_time_is_named(received, words, progress):
    wire = Wire()
    if received:
        wire.receive(received)
    wire.connection.expire()
    with pytest.raises(TimedOut, match=words) as caught:
        await wire.result()
    assert caught.value.progress is progress
    assert wire.transport.aborted

import asyncio
import re
from collections.abc import Callable
from math import inf
from typing import NoReturn, Protocol, cast

import httptools

from event_service.libs.http_client.errors import Broken, HttpClientError, Malformed, TimedOut
from event_service.libs.http_client.reply import Reply

MAX_HEAD = 64 * 1024  # bytes
MAX_FIELDS = 256
# Bytes of a body that are read before the caller reads it.
READ_AHEAD = 64 * 1024
# Limits in bytes and seconds for reading the rest of a discarded reply.
MAX_DRAIN = 64 * 1024
DRAIN_TIME = 1.0
# Bytes around the data of a chunk that are normal: its size and its line breaks.
CHUNK_FRAME = 32

_FIRST_FINAL = 200
_INTERIM = frozenset(
    {100, *range(102, _FIRST_FINAL)}
)  # without 101, which answers a request to upgrade
_HEEDED = frozenset({b"content-encoding", b"transfer-encoding", b"keep-alive"})
_KEEP_ALIVE = re.compile(rb"timeout=(\d{1,9})")


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def on_free(self, connection: "Connection") -> None:
        """The reply is complete, and the connection can serve another call."""

    def on_gone(self, connection: "Connection") -> None:
        """The connection has ended, or will end in this turn of the loop."""

    def on_started(self, deadline: float) -> None:
        """A call has started; the owner must call `expire` at `deadline`."""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 exchange at a time on one transport.

    Any violation of the protocol ends the connection, so no byte of one call can reach the next.
    """

    def __init__(self, owner: Owner, clock: Callable[[], float]) -> None:
        self._owner = owner
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._received = 0  # bytes of this reply, including head and frames
        self._pieces = 0  # of this reply's body
        self._surplus = False
        self._keep_alive = False
        self._paused = False
        self._fault: Malformed | None = None
        self.gone = False
        self.replies = 0
        self.idle_since = 0.0
        self.good_until = inf  # may serve a call until then
        self.keep_alive_hint: int | None = None  # seconds, from the peer
        self.address = ""
        self.connect_time: float | None = None
        self.tls_time: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""

    def exchange(self, request: bytes, *, time_limit: float, max_body: int) -> Reply:
        """Send a whole request; returns the reply to wait for. `time_limit`: seconds for both."""
        now = self._clock()
        reply = Reply(
            self,
            sent_at=now,
            deadline=now + time_limit,
            max_body=max_body,
            reused=self.replies > 0,
        )
        if not self.replies:
            # It calls the methods on_… below, and references them until the connection is lost.
            self._parser = httptools.HttpResponseParser(self)
            reply.connect_time = self.connect_time
            reply.tls_time = self.tls_time
        self._received = self._pieces = 0
        self._reply = reply
        assert self._transport is not None  # noqa: S101 - connection_made comes first
        self._transport.write(request)
        self._owner.on_started(reply.deadline)
        return reply

    @property
    def usable(self) -> bool:
        return not self.gone

    @property
    def deadline(self) -> float | None:
        """The deadline of the current call."""
        return None if self._reply is None else self._reply.deadline

    def expire(self) -> None:
        """End the current call because its deadline has passed."""
        reply = self._reply
        if reply is None:
            return
        if reply.status:
            waited_for = "the body was not complete in time"
        elif reply.first_byte_at is not None:
            waited_for = "the head of the reply was not complete in time"
        else:
            waited_for = "no byte of a reply in time"
        self._fail(TimedOut(waited_for))

    def close(self) -> None:
        """End the connection at once; its current call fails."""
        if self._reply is not None:
            self._fail(Broken("the client was closed"))
        else:
            self._end()

    # Called by replies.

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def drain(self, reply: Reply) -> None:
        if reply is self._reply:
            reply.discarded = True
            reply.body = b""
            reply.max_body = reply.size + MAX_DRAIN
            reply.deadline = min(reply.deadline, self._clock() + DRAIN_TIME)
            self._owner.on_started(reply.deadline)
            self.resume()

    def abandon(self, reply: Reply) -> None:
        if reply is self._reply:
            self._end()

    # Called by the transport.

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:
            # Data without a request, such as a 408 from a server that is about to close.
            self._end()
            return
        if reply.first_byte_at is None:
            reply.first_byte_at = self._clock()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not reply.complete:
                self._fail(self._fault or Malformed(f"not HTTP/1.1: {exc}"))
                return
            self._surplus = True
        if reply.complete:
            self._finish(reply)
        else:
            self._go_on(reply)

    def eof_received(self) -> None:
        if self._reply is None:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        vars(self).pop("_parser", None)
        reply = self._reply
        if reply is None:
            self._end()
        elif exc is None and _ends_with_its_connection(reply):
            reply.complete = True
            self._finish(reply)
        else:
            how = getattr(exc, "reason", None) or getattr(exc, "strerror", None)
            self._fail(
                Broken(f"the connection ended before the reply: {how or 'closed by the peer'}")
            )

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self._reply is None or self._reply.complete:
            self._refuse("more than one reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        reply = self._reply
        assert reply is not None  # noqa: S101 - the parser is fed only while there is one
        if not reply.status:  # otherwise it is a trailer, which is ignored
            reply.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        reply = self._reply
        assert reply is not None  # noqa: S101 - the parser is fed only while there is one
        headers = reply.headers
        if len(headers) > MAX_FIELDS:
            self._refuse(f"more than {MAX_FIELDS} header fields")
        if self._received > MAX_HEAD and _size(headers) > MAX_HEAD:
            self._refuse(f"a head of more than {MAX_HEAD} bytes")
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL:
            if status not in _INTERIM:
                self._refuse(f"status {status}")
            return
        for name, value in headers:
            if name in _HEEDED:
                self._heed(reply, name, value)
        reply.status = status

    def _heed(self, reply: Reply, name: bytes, value: bytes) -> None:
        value = value.strip()
        if name == b"content-encoding":
            reply.encoding = b", ".join(filter(None, (reply.encoding, value)))
        elif name == b"keep-alive":
            hint = _KEEP_ALIVE.search(value)
            self.keep_alive_hint = int(hint[1]) if hint else None
        elif reply.chunked or value.lower() != b"chunked":
            self._refuse("a transfer encoding that was not asked for")
        else:
            reply.chunked = True

    def on_body(self, data: bytes) -> None:
        reply = self._reply
        assert reply is not None  # noqa: S101 - the parser is fed only while there is one
        self._pieces += 1
        reply.size += len(data)
        if reply.discarded:
            return
        if not reply.body:
            reply.body = data
            return
        if isinstance(reply.body, bytes):
            # As separate objects, thousands of small pieces would need many times their size.
            reply.body = bytearray(reply.body)
        reply.body += data

    def on_message_complete(self) -> None:
        reply = self._reply
        assert reply is not None  # noqa: S101 - the parser is fed only while there is one
        if not reply.status:
            reply.headers.clear()  # of an interim reply; the final one follows
            return
        reply.complete = True
        self._keep_alive = self._parser.should_keep_alive()

    def _refuse(self, why: str) -> NoReturn:
        self._fault = Malformed(why)
        raise self._fault

    def _go_on(self, reply: Reply) -> None:
        if reply.watch is not None:
            reply.watch.heard()
        if self._received > MAX_HEAD and self._is_mostly_frame(reply):
            self._fail(Malformed(f"more than {MAX_HEAD} bytes that are no body"))
        elif reply.discarded:
            if reply.size > reply.max_body:
                self._end()
        elif reply.taken:
            if reply.size > reply.max_body:
                reply.changed()
        elif reply.status:
            if reply.size > READ_AHEAD:
                self._pause()
            reply.changed()

    def _is_mostly_frame(self, reply: Reply) -> bool:
        """Whether a head, chunk extensions or trailers grow too large."""
        if not reply.status:
            return True
        allowed = 2 * MAX_HEAD + self._pieces * CHUNK_FRAME + reply.size
        return self._received - reply.size > allowed

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _finish(self, reply: Reply) -> None:
        self._reply = None
        self.replies += 1
        self.idle_since = now = self._clock()
        transport = self._transport
        if (
            self._keep_alive
            and not self._surplus
            and transport is not None
            and not transport.get_write_buffer_size()
        ):
            self._owner.on_free(self)
        else:
            self._end()
        reply.finished(now)

    def _fail(self, error: HttpClientError) -> None:
        reply = self._reply
        self._end()
        if reply is not None:
            reply.failed(error)

    def _end(self) -> None:
        self._reply = None
        if self.gone:
            return
        self.gone = True
        if self._transport is not None:
            self._transport.abort()
        self._owner.on_gone(self)


def _ends_with_its_connection(reply: Reply) -> bool:
    """Whether the end of the connection ends the body (RFC 9112, 6.3); llhttp cannot see that."""
    framed = {b"content-length", b"transfer-encoding"}
    return bool(reply.status) and not any(name in framed for name, _ in reply.headers)


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + len(": \r\n") for name, value in headers)

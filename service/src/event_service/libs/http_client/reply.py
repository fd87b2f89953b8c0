import asyncio
from typing import Protocol

from event_service.libs.http_client.encoding import decode
from event_service.libs.http_client.errors import (
    Broken,
    HttpClientError,
    Progress,
    Timings,
    TooLarge,
)


class Carrier(Protocol):
    """The connection that carries a reply."""

    def resume(self) -> None: ...

    def drain(self, reply: "Reply") -> None: ...

    def abandon(self, reply: "Reply") -> None: ...


class Watch(Protocol):
    """An observer of a call in progress."""

    def waiting(self) -> None:
        """The connection limit is reached, so the call waits for a connection."""

    def waited(self) -> None:
        """The wait is over: the call has a connection, or may open one."""

    def heard(self) -> None:
        """The peer responded, with a new connection or a part of the reply."""


class Reply:
    """The reply to one request, which may be incomplete. Use from one task.

    `HttpClient.send` returns it when `status` and `headers` are known. Read or discard it: until
    then it occupies its connection, at most until the call's time limit.
    """

    # Class attributes, because most replies never change them.
    status = 0
    encoding = b""
    chunked = False
    complete = False
    connect_time: float | None = None
    tls_time: float | None = None
    first_byte_at: float | None = None
    ended_at: float | None = None
    body: bytes | bytearray = b""  # received so far, still encoded
    size = 0  # of the body so far
    taken = False
    discarded = False
    watch: Watch | None = None
    _failure: HttpClientError | None = None
    _waiter: asyncio.Future[None] | None = None

    def __init__(
        self, carrier: Carrier, *, sent_at: float, deadline: float, max_body: int, reused: bool
    ) -> None:
        # Names in lower case, in the order of arrival.
        self.headers: list[tuple[bytes, bytes]] = []
        self.reused = reused  # the connection has served a call before this one
        self.sent_at = sent_at
        self.deadline = deadline
        self.max_body = max_body
        self._carrier: Carrier | None = carrier

    def header(self, name: bytes) -> str:
        """The field's values joined by ", "; "" if there is none. `name` in lower case."""
        values = [value.strip() for each, value in self.headers if each == name]
        return b", ".join(values).decode("latin-1")

    @property
    def progress(self) -> Progress:
        return Progress.SENT if self.first_byte_at is None else Progress.REPLYING

    @property
    def timings(self) -> Timings:
        return Timings(
            self.connect_time,
            self.tls_time,
            None if self.first_byte_at is None else self.first_byte_at - self.sent_at,
            None if self.ended_at is None else self.ended_at - self.sent_at,
        )

    async def head(self) -> None:
        """Wait for status and headers. Cancelling this ends the call at the peer."""
        try:
            while not self.status:
                await self._change()
        except asyncio.CancelledError:
            self.abandon()
            raise

    async def read(self) -> bytes:
        """The whole body, decoded if it was compressed.

        Raises Broken, TimedOut, Malformed or TooLarge. Cancelling this ends the call at the peer.
        """
        if not self.complete:
            await self._rest()
        if self.size > self.max_body:
            raise self._too_large()
        if self.encoding:
            return decode(bytes(self.body), self.encoding.decode("latin-1"), self.max_body)
        return bytes(self.body)

    async def _rest(self) -> None:
        declared = self.header(b"content-length")  # digits; the parser refuses anything else
        if declared and int(declared) > self.max_body:
            raise self._too_large()
        self.taken = True
        if self._carrier is not None:
            self._carrier.resume()
        try:
            while not self.complete:
                if self.size > self.max_body:
                    raise self._too_large()
                await self._change()
        except asyncio.CancelledError:
            self.abandon()
            raise

    def _too_large(self) -> TooLarge:
        self.abandon()
        error = TooLarge(f"more than {self.max_body} bytes")
        error.timings = self.timings
        return error

    def discard(self) -> None:
        """Discard the body. If little of it is missing, it is read, so that the connection can be
        reused; otherwise the connection is closed.
        """
        if self._carrier is not None:
            self._carrier.drain(self)

    def abandon(self) -> None:
        """End the call at the peer, if it has not ended yet."""
        if self._carrier is not None:
            self._carrier.abandon(self)
            self._carrier = None

    # Called by the connection.

    def changed(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def finished(self, now: float) -> None:
        self.complete = True
        self.ended_at = now
        self._carrier = None
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def failed(self, error: HttpClientError) -> None:
        error.progress = self.progress
        error.timings = self.timings
        self._carrier = None
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            self._failure = error
        else:
            waiter.set_exception(error)

    def _change(self) -> asyncio.Future[None]:
        """A future that is done when more of the reply arrives. Raises the error if none will."""
        if self._carrier is None:
            failure, self._failure = self._failure, None
            try:
                raise failure or Broken("the call was given up")
            finally:
                # The error's traceback references this frame: break the cycle.
                del failure
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

"""Bodies on their way in: they take no place in flight before they are there, and what nobody
wants of them is read all the same, so that their senders see the reply.
"""

import asyncio
from collections import deque

from starlette.types import Message, Receive, Scope

from event_service.errors import Overloaded, RequestTimeout
from event_service.libs.time_limit import TimeLimits

# A body up to so long is waited for; the rest of a longer one is left to who reads it.
LONGEST_KEPT = 64 * 1024  # bytes
# All bodies together that are not complete yet. A client that sends a byte now and then occupies
# that byte, and not a place in flight.
MOST_KEPT = 64 * 1024 * 1024  # bytes
# A server that hangs up on a sender resets the connection, and the reply is lost with it. nginx
# calls this a lingering close.
MOST_DISCARDED = 64 * 1024 * 1024  # bytes
LONGEST_DISCARD = 5.0  # seconds


class Uploads:
    """The bodies that are on their way into this process."""

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._room = most_kept
        self.limits = TimeLimits()  # of the bodies' arrival

    def of(self, scope: Scope, receive: Receive) -> "Upload":
        for name, value in scope["headers"]:
            if name == b"content-length":
                return Upload(self, receive, kept=int(value) <= LONGEST_KEPT)
            if name == b"transfer-encoding":
                return Upload(self, receive, kept=True)
        return Upload(self, receive, kept=False, over=True)

    def take(self, size: int) -> None:
        if size > self._room:
            raise Overloaded("Too many bodies are on their way in.")
        self._room -= size

    def give_back(self, size: int) -> None:
        self._room += size


class Upload:
    """The body of one request, if it has any. `receive` stands in for the server's."""

    __slots__ = ("_given_up", "_kept", "_messages", "_receive", "_uploads", "over")

    def __init__(
        self, uploads: Uploads, receive: Receive, *, kept: bool, over: bool = False
    ) -> None:
        self._uploads = uploads
        self._receive = receive
        self._kept = kept
        self.over = over  # all of it has been read, or there is none
        self._given_up = False
        self._messages: deque[Message] | None = None  # what has been read ahead

    @property
    def receive(self) -> Receive:
        # Kept as an attribute, the bound method would tie this object, and with it the server's
        # connection, to the garbage collector.
        return self._receive if self.over and not self._messages else self._next

    async def arrive(self, *, deadline: float) -> None:
        """Wait until the body is here, or more of it than is kept, or its sender gives up.

        `deadline` is in seconds on the event loop's clock. Raises RequestTimeout then, and
        Overloaded if too much is on its way already.
        """
        if not self._kept:
            return
        size = 0
        messages = self._messages = deque()
        try:
            with self._uploads.limits(deadline):
                while not self.over and size <= LONGEST_KEPT:
                    message = await self._read()
                    messages.append(message)
                    if not self.over:
                        self._uploads.take(len(message["body"]))
                        size += len(message["body"])
        except TimeoutError:
            self._given_up = True
            late = "The body did not arrive within the time a request has."
            raise RequestTimeout(late) from None
        except asyncio.CancelledError:
            # The request as a whole has the same deadline, and may be the first to notice.
            self._given_up = True
            raise
        finally:
            self._uploads.give_back(size)

    def reply_headers(self) -> list[tuple[bytes, bytes]]:
        """What an error's reply says where the body was not read to its end."""
        return [] if self.over else [(b"connection", b"close")]

    async def discard(self) -> None:
        """Read the rest, for a bounded time and size, and throw it away.

        What came too slowly before is not read on.
        """
        if self.over or self._given_up:
            return
        size, more = 0, True
        try:
            async with asyncio.timeout(LONGEST_DISCARD):
                while more and size < MOST_DISCARDED:
                    message = await self._read()
                    more = message.get("more_body", False)
                    size += len(message.get("body", b""))
        except TimeoutError:
            pass

    async def _next(self) -> Message:
        return self._messages.popleft() if self._messages else await self._read()

    async def _read(self) -> Message:
        message = await self._receive()
        if not message.get("more_body"):
            self.over = True
        return message

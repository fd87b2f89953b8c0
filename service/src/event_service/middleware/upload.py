"""Receives request bodies.

A request does not count as in flight before its body has arrived. Unread bodies are read and
discarded after the reply, so that the sender can read the reply.
"""

import asyncio
from collections import deque

from starlette.types import Message, Receive, Scope

from event_service.errors import Overloaded, RequestTimeout
from event_service.libs.time_limit import TimeLimits

# Bodies up to this size are buffered before the request starts; longer ones are read by the route.
LONGEST_KEPT = 64 * 1024  # bytes
# Limit for all incomplete bodies together. A slow client occupies only the bytes it has sent, not
# a place among the requests in flight.
MOST_KEPT = 64 * 1024 * 1024  # bytes
# Closing while the client still sends resets the connection, and the reply is lost. So the rest is
# read first, up to these limits. nginx calls this a lingering close.
MOST_DISCARDED = 64 * 1024 * 1024  # bytes
LONGEST_DISCARD = 5.0  # seconds


class Uploads:
    """The bodies that are arriving in this process."""

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._room = most_kept
        self.limits = TimeLimits()  # for the arrival of bodies

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
    """The body of one request, if it has one. Use its `receive` instead of the server's."""

    __slots__ = ("_given_up", "_kept", "_messages", "_receive", "_uploads", "over")

    def __init__(
        self, uploads: Uploads, receive: Receive, *, kept: bool, over: bool = False
    ) -> None:
        self._uploads = uploads
        self._receive = receive
        self._kept = kept
        self.over = over  # the whole body has been read, or there is none
        self._given_up = False
        self._messages: deque[Message] | None = None  # read ahead

    @property
    def receive(self) -> Receive:
        # Not an attribute: a stored bound method is a reference cycle, which would keep the
        # server's connection alive until the next garbage collection.
        return self._receive if self.over and not self._messages else self._next

    async def arrive(self, *, deadline: float) -> None:
        """Wait until the body is complete, exceeds the buffer's limit, or the sender gives up.

        `deadline` is in seconds on the event loop's clock. Raises RequestTimeout after it, and
        Overloaded if too many bodies are arriving.
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
            # The request has the same deadline; its timer may fire first.
            self._given_up = True
            raise
        finally:
            self._uploads.give_back(size)

    def reply_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of an error's reply if the body was not read completely."""
        return [] if self.over else [(b"connection", b"close")]

    async def discard(self) -> None:
        """Read and discard the rest of the body, up to limits of time and size.

        Does nothing if the body was already too slow.
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

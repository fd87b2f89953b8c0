"""The dashboard's feed as server-sent events."""

import asyncio
import time
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from event_service.dashboard.changes import Edition
from event_service.errors import Overloaded
from event_service.signals import STREAMED

MAX_WATCHERS = 100
# Seconds. A watcher that takes longer to receive a frame is disconnected; browsers reconnect.
SLOWEST = 10.0
_LAST_WORDS = 0.25

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),  # a compressing proxy would delay frames
    (b"x-accel-buffering", b"no"),  # a buffering proxy would, too
]


class DashboardStream:
    """An endless response: first a whole frame, then about once a second what has changed.

    A slow watcher skips frames, so nothing accumulates for it; if it missed too many, it gets a
    whole frame. `close` ends all watchers and refuses new ones.
    """

    def __init__(
        self,
        newest: Callable[[], Edition],
        *,
        max_watchers: int = MAX_WATCHERS,
        slowest: float = SLOWEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slowest` is in seconds."""
        self._newest = newest
        self._max_watchers = max_watchers
        self._slowest = slowest
        self._clock = clock
        self._closing = asyncio.Event()
        self.watchers = 0

    def close(self) -> None:
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.watchers >= self._max_watchers or self._closing.is_set():
            raise Overloaded("Too many watch the dashboard already.", retry_after=5.0)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await send({"type": "http.response.body", "body": b""})
            return
        scope[STREAMED] = True
        self.watchers += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await self._serve(receive, send)
        finally:
            self.watchers -= 1

    async def _serve(self, receive: Receive, send: Send) -> None:
        feeding = asyncio.create_task(self._feed(send))
        leaving = asyncio.create_task(_until_gone(receive))
        closing = asyncio.create_task(self._closing.wait())
        tasks = (feeding, leaving, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(results[0], Exception) and not isinstance(results[0], TimeoutError):
            raise results[0]
        if not leaving.done() or leaving.cancelled():
            await _end(send)

    async def _feed(self, send: Send) -> None:
        await _send(send, b"retry: 1000\n\n")
        sent = 0
        while True:
            edition = self._newest()
            if edition.number != sent:
                async with asyncio.timeout(self._slowest):
                    await _send(send, _event(edition, since=sent))
                sent = edition.number
            await asyncio.sleep(1.0 - self._clock() % 1.0)


def _event(edition: Edition, *, since: int) -> bytes:
    changes = edition.since(since)
    if not changes:
        return b"id: %d\ndata: %b\n\n" % (edition.number, edition.whole)
    return b"".join(b"id: %d\nevent: change\ndata: %b\n\n" % change for change in changes)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _end(send: Send) -> None:
    # A client that has stopped reading will not read this either.
    try:
        async with asyncio.timeout(_LAST_WORDS):
            await send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        pass

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Message, Receive

from event_service.errors import ClientGone, DeadlineExceeded, RequestTimeout

# Seconds between two checks of all requests. A task that listens for the client's disconnect starts
# at a request's second check; most requests are over by then.
TICK = 0.05
# Most requests to listen for at once. Above this, finishing is cheaper than watching for
# disconnects, and the extra tasks would make an overload worse.
LISTENERS = 512


class RequestWatch:
    """A context manager that cancels its block at the request's deadline or if the client leaves.

    The block then ends with DeadlineExceeded, with RequestTimeout if it was waiting for the
    request's body, or with ClientGone. Any other cancellation passes through.

    The server reports a disconnect only to a call of `receive`. So read the body through this
    `receive`; after the body, a listener waits for the disconnect.
    """

    __slots__ = (
        "_listener",
        "_receive",
        "_task",
        "_verdict",
        "_watches",
        "deadline",
        "looked_at",
        "reading",
    )

    def __init__(self, watches: "RequestWatches", receive: Receive, deadline: float) -> None:
        self._watches = watches
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None
        self._verdict: Exception | None = None
        self.deadline = deadline
        self.reading = False
        self.looked_at = False

    async def receive(self) -> Message:
        self.reading = True
        message = await self._receive()
        self.reading = False
        return message

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request must run in a task")
        self._task = task
        self._watches.watched[self] = None
        if not self._watches.ticking:
            self._watches.look_later()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        del self._watches.watched[self]
        if self._listener is not None:
            self._watches.listened_for -= 1
            self._listener.cancel()
            # The task references this object. Break the cycle, or both would keep the request's
            # objects alive until the next garbage collection.
            self._listener = None
        if self._verdict is None:
            return
        others = self._task.uncancel()
        try:
            if isinstance(error, asyncio.CancelledError) and not others:
                raise self._verdict from error
        finally:
            # The error's traceback references this frame: break the cycle here, too.
            self._verdict = None
            del error

    @property
    def listening(self) -> bool:
        return self._listener is not None

    def listen(self) -> None:
        """Start to listen for the client's disconnect."""
        self._listener = asyncio.create_task(self._until_gone())

    def expire(self) -> None:
        """Cancel the block because the deadline has passed."""
        self._cancel(
            RequestTimeout("The body did not arrive within the time a request has.")
            if self.reading
            else DeadlineExceeded("There was no answer within the time a request has.")
        )

    async def _until_gone(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._cancel(ClientGone())
                return
            if message.get("more_body"):
                # A body that the route does not read. Reading it here would invite more of it.
                return

    def _cancel(self, verdict: Exception) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self._task.cancel()


class RequestWatches:
    """Watches all requests of one event loop with one timer. Deadlines are accurate to one tick.

    At most `listeners` requests are watched for disconnects at the same time.
    """

    def __init__(self, *, tick: float = TICK, listeners: int = LISTENERS) -> None:
        self._tick = tick
        self._listeners = listeners
        self.listened_for = 0
        self.watched: dict[RequestWatch, None] = {}  # the oldest first
        self.ticking = False

    def __call__(self, receive: Receive, *, deadline: float) -> RequestWatch:
        """`deadline` is in seconds on the event loop's clock."""
        return RequestWatch(self, receive, deadline)

    def look_later(self) -> None:
        self.ticking = True
        asyncio.get_running_loop().call_later(self._tick, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for watch in self.watched:
            if watch.deadline <= now:
                watch.expire()
            elif watch.reading or watch.listening:
                continue
            elif watch.looked_at and self.listened_for < self._listeners:
                watch.listen()
                self.listened_for += 1
            watch.looked_at = True
        self.ticking = False
        if self.watched:
            self.look_later()

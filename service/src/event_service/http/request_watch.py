import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Message, Receive

from event_service.errors import ClientGone, DeadlineExceeded, RequestTimeout
from event_service.libs.bulkhead import Bulkhead

# Most requests are over sooner and never cost the task that listens for the client's leaving.
PATIENCE = 0.05
# So many are listened for at once: where more are slow than that, to serve them for nobody costs
# less than to know who left. Without a bound, an overload would feed itself.
LISTENERS = 512

_listeners = Bulkhead(LISTENERS, max_waiting=0)


class RequestWatch:
    """Cancels the block it stands around when the request's deadline passes or its client leaves.

    The block then ends with DeadlineExceeded, with RequestTimeout if it was waiting for the
    request's body, or with ClientGone. A cancellation from elsewhere stays one. The server does
    not cancel by itself: it says that a client left only to those who receive. So the body is
    to be read through `receive`, and what comes after it is listened for here: soon, while no
    more than LISTENERS requests are slow at once, else when another's turn is over.
    """

    __slots__ = (
        "_deadline",
        "_listener",
        "_loop",
        "_pause",
        "_reading",
        "_receive",
        "_task",
        "_timer",
        "_verdict",
    )

    def __init__(self, receive: Receive, *, deadline: float) -> None:
        """`deadline` is in seconds on the event loop's clock."""
        self._receive = receive
        self._deadline = deadline
        self._pause = PATIENCE
        self._reading = False
        self._listener: asyncio.Task[None] | None = None
        self._verdict: Exception | None = None

    async def receive(self) -> Message:
        self._reading = True
        message = await self._receive()
        self._reading = False
        return message

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request must run in a task")
        self._task = task
        self._look_later(self._loop.time())
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
            # Its end holds its frame, and that holds us: together they would be left to the
            # garbage collector, with all that the request had.
            self._listener = None
            _listeners.release()
        if self._verdict is None:
            return
        others = self._task.uncancel()
        try:
            if isinstance(error, asyncio.CancelledError) and not others:
                raise self._verdict from error
        finally:
            # An error's traceback holds this frame; nothing here must hold the error in turn.
            self._verdict = None
            del error

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._deadline:
            self._end(
                RequestTimeout("The body did not arrive within the time a request has.")
                if self._reading
                else DeadlineExceeded("There was no answer within the time a request has.")
            )
            return
        if self._listener is None and not self._reading:
            if _listeners.try_acquire():
                self._listener = self._loop.create_task(self._listen())
            else:
                self._pause *= 2
        self._look_later(now)

    def _look_later(self, now: float) -> None:
        due = self._deadline if self._listener else min(now + self._pause, self._deadline)
        self._timer = self._loop.call_at(due, self._look)

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._end(ClientGone())
                return
            if message.get("more_body"):
                # A body that nobody asked for; to read it would be to ask for more of it.
                return

    def _end(self, verdict: Exception) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self._task.cancel()

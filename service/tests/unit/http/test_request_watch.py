import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from event_service.errors import DeadlineExceeded, InvalidRequest, RequestTimeout
from event_service.http.endpoint import Endpoint, Reply
from event_service.http.request_watch import RequestWatches
from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.middleware.request_context import RequestContext
from event_service.signals import RequestDone, Signal

pytestmark = pytest.mark.anyio

SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/",
    "raw_path": b"/",
    "headers": [(b"host", b"x")],
    "client": ("127.0.0.1", 1),
}


class Held:
    """Stands for the connection that a request is received through."""


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def refuse(_request: Request) -> None:
    raise InvalidRequest("no")


async def wait(_request: Request) -> None:
    await forever()


async def read(request: Request) -> None:
    while True:
        await request.receive()


class Ends:
    def __init__(self) -> None:
        self.kinds: list[type[Exception] | None] = []

    def __call__(self, signal: Signal) -> None:
        if isinstance(signal, RequestDone):
            self.kinds.append(type(signal.error) if signal.error else None)


async def run(
    act: Callable[[Request], Awaitable[None]],
    *messages: Message,
    deadline: float,
    watches: RequestWatches | None = None,
    heard: asyncio.Event | None = None,
) -> tuple[list[Message], Ends, "weakref.ref[Held]"]:
    """What was sent, what was told of its end, and whether its connection is free.

    `heard` is set when somebody listens on after the messages.
    """
    sent: list[Message] = []
    held = Held()
    ends = Ends()
    left = list(messages)

    async def handler(request: Request) -> Reply:
        await act(request)
        return Reply(b"")

    async def receive() -> Message:
        assert held
        if not left:
            if heard is not None:
                heard.set()
            await forever()
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    app = RequestContext(
        Endpoint(handler, watches=watches), deadline=deadline, emit=ends, notice=ShutdownNotice()
    )
    await app(dict(SCOPE), receive, send)
    await asyncio.sleep(0)  # the loop itself holds the cancellation until its next turn
    return sent, ends, weakref.ref(held)


BODY: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}
PART: Message = {"type": "http.request", "body": b"x", "more_body": True}


@pytest.mark.parametrize(
    ("act", "messages", "deadline", "kind", "status"),
    [
        (refuse, [], 5, InvalidRequest, 400),
        (wait, [], 0.01, DeadlineExceeded, 504),
        (wait, [BODY], 0.2, DeadlineExceeded, 504),
        (read, [PART, PART], 0.01, RequestTimeout, 408),
        (read, [PART], 0.2, RequestTimeout, 408),
    ],
)
async def test_every_end_of_a_request_frees_its_objects_at_once(
    act: Callable[[Request], Awaitable[None]],
    messages: list[Message],
    deadline: float,
    kind: type[Exception],
    status: int,
):
    gc.disable()
    try:
        sent, ends, held = await run(act, *messages, deadline=deadline)

        assert held() is None
    finally:
        gc.enable()
    assert ends.kinds == [kind]
    assert sent[0]["status"] == status


async def test_a_slow_success_frees_at_once_what_the_request_held():
    watches = RequestWatches(tick=0.001)

    heard = asyncio.Event()

    async def until_listened_for(_request: Request) -> None:
        await heard.wait()

    gc.disable()
    try:
        sent, _, held = await run(until_listened_for, deadline=60, watches=watches, heard=heard)

        assert held() is None
    finally:
        gc.enable()
    assert sent[0]["status"] == 200


async def test_a_client_that_leaves_ends_the_wait_and_gets_no_reply():
    gc.disable()
    try:
        sent, ends, held = await run(wait, BODY, GONE, deadline=60)

        assert held() is None
    finally:
        gc.enable()
    assert sent == []
    assert ends.kinds == [None]


async def test_a_body_that_nobody_reads_is_not_drained():
    sent, ends, _ = await run(wait, PART, GONE, deadline=0.2)

    assert sent[0]["status"] == 504
    assert ends.kinds == [DeadlineExceeded]


async def test_a_cancellation_from_elsewhere_stays_one():
    task = asyncio.create_task(run(wait, deadline=60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_more_than_so_many_slow_requests_are_listened_for_at_once():
    watches = RequestWatches(tick=0.01, listeners=1)
    first = asyncio.create_task(run(wait, deadline=0.3, watches=watches))
    second = asyncio.create_task(run(wait, BODY, GONE, deadline=60, watches=watches))

    over, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert over == {first}, "nobody hears the second leave while the first is listened for"
    assert (await first)[1].kinds == [DeadlineExceeded]
    sent, ends, _ = await second
    assert sent == []
    assert ends.kinds == [None], "heard of once the first is over"

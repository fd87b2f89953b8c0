import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from event_service import context
from event_service.libs.shutdown_notice import ShutdownNotice
from event_service.middleware.request_context import RequestContext
from event_service.signals import Signals

pytestmark = pytest.mark.anyio

SCOPE: Scope = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "headers": [(b"host", b"x")],
    "client": ("127.0.0.1", 1),
}


@pytest.mark.parametrize(("deadline", "kept_back"), [(0.5, 0.05), (2, 0.2), (5, 0.25), (60, 0.25)])
async def test_a_request_keeps_time_back_to_answer_in(deadline: float, kept_back: float):
    calls: list[context.CallContext] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        calls.append(context.require())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, object]:
        return await asyncio.get_running_loop().create_future()

    async def send(_message: object) -> None:
        pass

    began = asyncio.get_running_loop().time()
    outermost = RequestContext(app, deadline=deadline, emit=Signals().emit, notice=ShutdownNotice())
    await outermost(dict(SCOPE), receive, send)

    (call,) = calls
    assert call.deadline >= began + deadline
    assert call.deadline - call.answer_by == pytest.approx(kept_back)
    assert call.latest == call.answer_by

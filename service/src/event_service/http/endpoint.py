from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from msgspec import Struct
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from event_service import context
from event_service.http.request_watch import RequestWatch, RequestWatches


class Reply(Struct, frozen=True, gc=False):
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    media_type: str = "application/json"


class Endpoint:
    """Turns a function from a request to a reply into an ASGI app.

    The function is cancelled when the request's deadline passes (DeadlineExceeded, or
    RequestTimeout while it reads the body) and when the client leaves (ClientGone). All errors
    pass to the outer layers.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Reply]],
        *,
        watches: RequestWatches | None = None,
    ) -> None:
        self._handler = handler
        self._watches = watches or RequestWatches()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with RequestWatch(self._watches, receive, context.require().deadline) as watch:
            reply = await self._handler(Request(scope, watch.receive))
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"content-length", b"%d" % len(reply.body)),
        ]
        for name, value in reply.headers.items():
            headers.append((name.encode(), value.encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

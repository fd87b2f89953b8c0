import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from event_service.errors import DeadlineExceeded
from event_service.libs import call_context


class Reply(NamedTuple):
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    media_type: str = "application/json"


class Endpoint:
    """Makes an ASGI app of a function from a request to a reply.

    The request's deadline ends the function and all it waits for: DeadlineExceeded. Every error
    passes to the outer layers.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Reply]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = call_context.current.get()
        try:
            async with asyncio.timeout_at(None if call is None else call.deadline) as deadline:
                reply = await self._handler(Request(scope, receive))
        except TimeoutError as exc:
            if not deadline.expired():
                raise
            raise DeadlineExceeded("There was no answer within the time a request has.") from exc
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
        ]
        for name, value in reply.headers.items():
            headers.append((name.encode(), value.encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

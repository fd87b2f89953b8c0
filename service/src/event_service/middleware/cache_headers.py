from starlette.types import ASGIApp, Message, Receive, Scope, Send

from event_service import context
from event_service.context import CacheStatus

CACHE_NAME = "event-service"


class CacheHeaders:
    """Says with `Age` and `Cache-Status` what part the cache had in a reply.

    Around the routes only: a reply to an error comes from no cache.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = context.require().cache_status = CacheStatus(CACHE_NAME)

        async def send_with_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += status.headers()
            await send(message)

        await self._app(scope, receive, send_with_status)

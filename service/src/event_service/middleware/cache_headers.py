from starlette.types import ASGIApp, Message, Receive, Scope, Send

from event_service import context
from event_service.context import CacheStatus

CACHE_NAME = "event-service"


class CacheHeaders:
    """Adds `Age` and `Cache-Status` to replies that may come from the cache.

    It wraps the routes only, because an error never comes from the cache.
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

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from event_service import context

ANY_ORIGIN = "*"
_EXPOSED = (
    "Age, Cache-Status, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, "
    "X-Request-ID"
)
_ALLOWED_METHODS = "GET, HEAD, POST"
_MAX_AGE = "600"  # seconds for which a browser need not ask again


class Cors:
    """Lets pages of some other origins use the API (the Fetch standard's CORS protocol).

    Credentials are never allowed, so that `*` is as safe as any one origin: a page gets what
    anyone gets who has no cookie.
    """

    def __init__(
        self, app: ASGIApp, *, origins: Sequence[str], request_headers: Sequence[str]
    ) -> None:
        """`origins`: exact, as a browser sends them, or `*`. `request_headers`: those that a
        page may send beside the always allowed ones.
        """
        self._app = app
        self._origins = {origin.encode() for origin in origins}
        self._any = ANY_ORIGIN in origins
        self._preflight = [
            (b"access-control-allow-methods", _ALLOWED_METHODS.encode()),
            (b"access-control-allow-headers", ", ".join(request_headers).encode()),
            (b"access-control-max-age", _MAX_AGE.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin, preflight = None, False
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"access-control-request-method":
                preflight = scope["method"] == "OPTIONS"
        headers = context.require().reply_headers
        if not self._any:
            # Without an Origin, too: a cache must not serve that reply to one that has one.
            headers.append((b"vary", b"Origin"))
        allowed = origin is not None and (self._any or origin in self._origins)
        if allowed and origin is not None:
            headers.append(
                (b"access-control-allow-origin", ANY_ORIGIN.encode() if self._any else origin)
            )
        if origin is None or not preflight:
            headers.append((b"access-control-expose-headers", _EXPOSED.encode()))
            await self._app(scope, receive, send)
            return
        # An origin that is not allowed learns no more than that; the browser draws the conclusion.
        answer = list(self._preflight) if allowed else []
        await send({"type": "http.response.start", "status": 204, "headers": answer})
        await send({"type": "http.response.body", "body": b""})

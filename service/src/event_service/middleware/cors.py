from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from event_service import context

ANY_ORIGIN = "*"
_EXPOSED = (
    "Age, Cache-Status, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, "
    "X-Request-ID"
)
_ALLOWED_METHODS = "GET, HEAD, POST"
_MAX_AGE = "600"  # seconds that a browser may cache the answer


class Cors:
    """Lets pages from other origins use the API (CORS, as in the Fetch standard).

    Credentials are never allowed, so `*` is as safe as a single origin: a page gets only what a
    client without cookies gets.
    """

    def __init__(
        self, app: ASGIApp, *, origins: Sequence[str], request_headers: Sequence[str]
    ) -> None:
        """`origins`: exactly as browsers send them, or `*`. `request_headers`: those that a page
        may send in addition to the headers that CORS always allows.
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
            # Also if there is no Origin: a cache must not serve that reply to a request with one.
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
        # Without these headers the browser blocks the request.
        answer = list(self._preflight) if allowed else []
        await send({"type": "http.response.start", "status": 204, "headers": answer})
        await send({"type": "http.response.body", "body": b""})

"""Access for operators: by bearer token, or by a browser session that was opened with it."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from event_service.errors import RateLimited, Unauthorized
from event_service.libs.window_counts import WindowCounts

COOKIE = "event_service_operator"
LIFETIME = 12 * 3600
# Wrong tokens that an address may send per minute.
GUESSES = 10
GUESS_WINDOW = 60.0
ADDRESSES = 10_000

_is_session = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})\Z").match


class OperatorAccess:
    """Admits a bearer token, and the session cookies that were issued for it.

    The cookie is an expiry and its HMAC under a key derived from the token; the server keeps
    nothing. Every process with the same token accepts it, and a new token ends all sessions.
    Secrets are compared in constant time.
    """

    def __init__(
        self,
        token: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"operator session\0" + self._token).digest()
        self._clock = clock
        self._wall_clock = wall_clock
        self._wrong = WindowCounts(ADDRESSES, clock=clock)

    def knows(self, token: str, *, client: str) -> bool:
        """Whether the token is right.

        Raises RateLimited if the address sent too many wrong tokens within a minute. Then even the
        right token is refused, so that guessing reveals nothing.
        """
        if self._wrong.get(client) >= GUESSES:
            wait = self._wrong.get_expiry(client) - self._clock()
            raise RateLimited("Too many wrong tokens came from this address.", retry_after=wait)
        known = hmac.compare_digest(token.encode(), self._token)
        if not known:
            self._wrong.incr(client, GUESS_WINDOW)
        return known

    def issue(self) -> str:
        """A cookie value for a session of `LIFETIME` seconds."""
        ends = str(int(self._wall_clock()) + LIFETIME)
        return f"{ends}.{self._sign(ends)}"

    def admits(self, headers: Iterable[tuple[bytes, bytes]], *, client: str) -> bool:
        """Whether a request with these headers comes from an operator. Raises as `knows`."""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, token = value.decode("latin-1").partition(" ")
                if scheme.lower() == "bearer" and self.knows(token.strip(), client=client):
                    return True
            elif name == b"cookie" and self._holds_session(value.decode("latin-1")):
                return True
        return False

    def _holds_session(self, cookies: str) -> bool:
        # Browsers separate cookies by ";" (RFC 6265, 5.4), whatever the values contain. They may
        # send several cookies of this name, set for different paths; one of them is ours.
        for pair in cookies.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == COOKIE and self._is_valid(value.strip()):
                return True
        return False

    def _is_valid(self, value: str) -> bool:
        session = _is_session(value)
        if session is None or not hmac.compare_digest(session[2], self._sign(session[1])):
            return False
        return int(session[1]) > self._wall_clock()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


class OperatorsOnly:
    """Passes operators' requests to `app`; raises Unauthorized for all others."""

    def __init__(self, app: ASGIApp, access: OperatorAccess | None) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._access is not None and not self._access.admits(
            scope["headers"], client=address(scope)
        ):
            raise Unauthorized("This is for operators: send the token, or sign in.")
        await self._app(scope, receive, send)


def address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""

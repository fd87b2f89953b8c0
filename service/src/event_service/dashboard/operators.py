"""Who may see what is for operators: holders of a token, and browsers that have shown it."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.types import ASGIApp, Receive, Scope, Send

from event_service.errors import Unauthorized

COOKIE = "event_service_operator"
LIFETIME = 12 * 3600

_is_session = re.compile(r"(\d{1,12})\.([0-9a-f]{64})\Z").match


class OperatorAccess:
    """Admits a bearer token, and the session cookies that were issued for it.

    A session holds when it ends and a signature made with a key that is derived from the token. So
    every process with the same token takes it, none remembers it, it does not reveal the token, and
    another token ends all sessions. Comparisons take the same time whatever they compare.
    """

    def __init__(self, token: str, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"operator session\0" + self._token).digest()
        self._wall_clock = wall_clock

    def knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token)

    def issue(self) -> str:
        """A session of `LIFETIME` seconds, fit for a cookie's value."""
        ends = str(int(self._wall_clock()) + LIFETIME)
        return f"{ends}.{self._sign(ends)}"

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers comes from an operator."""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, token = value.decode("latin-1").partition(" ")
                if scheme.lower() == "bearer" and self.knows(token.strip()):
                    return True
            elif name == b"cookie" and self._holds_session(value.decode("latin-1")):
                return True
        return False

    def _holds_session(self, cookies: str) -> bool:
        try:
            morsel = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        session = _is_session(morsel.value) if morsel else None
        if session is None or not hmac.compare_digest(session[2], self._sign(session[1])):
            return False
        return int(session[1]) > self._wall_clock()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


class OperatorsOnly:
    """Lets operators through to `app`; raises Unauthorized for everybody else."""

    def __init__(self, app: ASGIApp, access: OperatorAccess | None) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._access is not None and not self._access.admits(scope["headers"]):
            raise Unauthorized("This is for operators: send the token, or sign in.")
        await self._app(scope, receive, send)

from starlette.types import ASGIApp, Receive, Scope, Send

from event_service.errors import Overloaded
from event_service.libs.pace import Pace
from event_service.signals import Emit, LoadShed

# The path prefix of the requests that count and may be refused. Operators' requests are neither.
LIMITED = "/api/"
RETRY_AFTER = 1.0
# Requests that begin, and that are refused, in one turn of the event loop. Fewer bring a crowd
# through sooner while the upstream is quick, more while it is slow (docs/performance.md).
PACE = 32


class LoadShedding:
    """Refuses requests to the API beyond so many in flight, before any work is done for them.

    Requests in flight then end in time; a queue would grow until none does. Both admissions and
    refusals are paced, so that a burst leaves the event loop time for the requests in progress.
    """

    def __init__(self, app: ASGIApp, *, max_in_flight: int, emit: Emit) -> None:
        self._app = app
        self.max_in_flight = max_in_flight
        self._emit = emit
        self.in_flight = 0
        self._pace = Pace(PACE)
        self._refusals = Pace(PACE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Overloaded instead of waiting for others to end."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self._app(scope, receive, send)
            return
        if self._is_full():
            await self._refusals.begin()
            # Others may have ended during the wait.
            if self._is_full():
                self._emit(LoadShed())
                raise Overloaded("Too many requests are in flight.", retry_after=RETRY_AFTER)
        self.in_flight += 1
        try:
            await self._pace.begin()
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1

    def _is_full(self) -> bool:
        return self.in_flight >= self.max_in_flight

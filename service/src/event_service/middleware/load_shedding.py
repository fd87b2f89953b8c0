from starlette.types import ASGIApp, Receive, Scope, Send

from event_service.errors import Overloaded
from event_service.libs.pace import Pace
from event_service.signals import Emit, LoadShed

# Only requests under this prefix count and may be refused; operators' requests never are.
LIMITED = "/api/"
RETRY_AFTER = 1.0
# Requests admitted, and requests refused, per turn of the event loop. A lower number serves a burst
# sooner if the upstream is fast, a higher one if it is slow (docs/performance.md).
PACE = 32


class LoadShedding:
    """Refuses requests to the API above a number in flight, before any work is done for them.

    The requests in flight then finish in time; in a growing queue none would. Admissions and
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
        """Raises Overloaded at once, without waiting for other requests to finish."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self._app(scope, receive, send)
            return
        if self._is_full():
            await self._refusals.begin()
            # Other requests may have finished during the wait.
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

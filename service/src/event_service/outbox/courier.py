import asyncio
import time
from collections.abc import Awaitable, Callable
from random import random as chance
from typing import NamedTuple

import structlog

from event_service.errors import (
    EventServiceError,
    Overloaded,
    UpstreamConflict,
    UpstreamRejected,
    UpstreamTimeout,
    UserNotFound,
)
from event_service.outbox.pacing import Rests, Window
from event_service.outbox.records import Delivery, Outcome, State
from halfopen import CircuitBreaker, CircuitOpen
from halfopen import State as Circuit

# After so many failures with a closed circuit, an event is given up.
MOST_FAILURES = 20


class GivenUp(EventServiceError):
    """The event could not be delivered before its time limit."""

    def __init__(self) -> None:
        super().__init__("The event could not be delivered in the time that it is kept for.")


class Attempted(NamedTuple):
    """The result of an attempt. With `rest`, the lane pauses for so many seconds."""

    outcome: Outcome
    rest: float | None
    error: Exception | None


class Courier:
    """Makes single delivery attempts and decides what their results mean for the event."""

    def __init__(
        self,
        deliver: Callable[[Delivery], Awaitable[str]],
        circuit: CircuitBreaker,
        *,
        window: Window,
        rests: Rests,
        describe: Callable[[str, Exception], bytes],
        attempt_limit: float,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = chance,
    ) -> None:
        """`deliver` returns the id under which the upstream stored the event.

        An attempt is cancelled after `attempt_limit` seconds; `clock` is Unix time. `describe`
        turns a delivery's id and its error into JSON for clients and operators.
        """
        self._deliver = deliver
        self._circuit = circuit
        self._window = window
        self._rests = rests
        self._describe = describe
        self._limit = attempt_limit
        self._clock = clock
        self._random = random

    async def attempt(self, delivery: Delivery, *, maybe_sent: bool) -> Attempted:
        """Deliver the event, or give it up if its time limit has passed.

        `maybe_sent`: an earlier attempt may have reached the upstream, so a conflict means that
        the event is stored. Raises CircuitOpen or Overloaded if the attempt could not begin.
        """
        if delivery.give_up_at <= self._clock():
            return self._ended(delivery, State.DEAD, GivenUp(), attempts=0)
        closed = self._circuit.state is Circuit.CLOSED
        try:
            async with asyncio.timeout(self._limit):
                event_id = await self._deliver(delivery)
        except (CircuitOpen, Overloaded):
            raise
        except TimeoutError:
            text, reason = "The upstream did not answer in time.", "timeout: the relay's own limit"
            late = UpstreamTimeout("addEvent", text, reason=reason)
            return self._failed(delivery, late, closed=closed)
        except (UserNotFound, UpstreamRejected, UpstreamConflict) as error:
            if not (maybe_sent and isinstance(error, UpstreamConflict)):
                return self._ended(delivery, State.REFUSED, error)
            event_id = delivery.id
        except Exception as error:
            if not isinstance(error, EventServiceError):
                structlog.get_logger().exception("delivery broke")
            return self._failed(delivery, error, closed=closed)
        self._window.succeeded()
        self._rests.succeeded(delivery.user_id)
        outcome = Outcome(delivery.seq, State.DELIVERED, event_id=event_id)
        return Attempted(outcome, None, None)

    def _ended(
        self, delivery: Delivery, state: State, error: Exception, *, attempts: int = 1
    ) -> Attempted:
        problem = delivery.last_error if attempts == 0 else None
        outcome = Outcome(
            delivery.seq, state, attempts, last_error=problem or self._describe(delivery.id, error)
        )
        if state is State.REFUSED:
            # The upstream works; it refused only this event.
            self._window.succeeded()
            self._rests.succeeded(delivery.user_id)
        return Attempted(outcome, None, error)

    def _failed(self, delivery: Delivery, error: Exception, *, closed: bool) -> Attempted:
        self._window.failed()
        failures = delivery.failures + closed
        state = State.DEAD if failures >= MOST_FAILURES else State.QUEUED
        outcome = Outcome(
            delivery.seq, state, failures=int(closed), last_error=self._describe(delivery.id, error)
        )
        if state is State.DEAD:
            return Attempted(outcome, None, error)
        if closed:
            rest = self._rests.after_failure(delivery.user_id, failures)
        else:
            rest = self._rests.after_canary(
                cooldown=self._circuit.snapshot().retry_after,
                canaries=delivery.attempts + 1 - delivery.failures,
            )
        return Attempted(outcome, rest, error)

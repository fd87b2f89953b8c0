from collections.abc import Sequence

from starlette.types import Scope

from event_service.context import CallContext
from event_service.telemetry.records import RequestRecord
from halfopen import CircuitBreaker


class Listener:
    """What a log, a metric or a dashboard may hear; it overrides what it cares about.

    All of it is called on the event loop, between two steps of a request: be quick, never raise.
    Times are in seconds.
    """

    def request_started(self, method: str) -> None:
        """A request came in; its `request_done` follows without fail."""

    def request_identified(self, call: CallContext, scope: Scope) -> None:
        """The request's ids are known, and may still be replaced: nobody has used them yet."""

    def request_done(self, record: RequestRecord) -> None:
        """A request is over; its call context is still the current one."""

    def attempt_started(self, operation: str, number: int) -> None:
        """An attempt of a read begins, in the task and context it was told in; counted from 1."""

    def called(self, operation: str, outcome: str, duration: float) -> None:
        """One attempt at the upstream is over."""

    def retried(self, operation: str, attempt: int, error: Exception, wait: float) -> None:
        """The failed `attempt`, counted from 1, is tried again after `wait`."""

    def gave_up(self, operation: str, error: Exception, attempt: int, reason: str) -> None:
        """No further retry: `reason` is attempts, deadline or budget."""

    def shared(self, operation: str, leader: CallContext | None) -> None:
        """A caller joined a call that was already under way on behalf of `leader`."""

    def cache_hit(self, operation: str) -> None:
        """A read was answered from what an earlier one brought."""

    def rate_limited(self) -> None:
        """A request was refused because its client is over its rate."""

    def load_shed(self) -> None:
        """A request was refused because too many are in flight."""

    def watch(self, breaker: CircuitBreaker) -> None:
        """A breaker was built; subscribe to its events."""


class Signals(Listener):
    """Passes each signal on to those listeners that override its method, in their order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        def hearing(signal: str) -> list[Listener]:
            return [
                each
                for each in listeners
                if getattr(type(each), signal) is not getattr(Listener, signal)
            ]

        self._request_started = [each.request_started for each in hearing("request_started")]
        self._request_identified = [
            each.request_identified for each in hearing("request_identified")
        ]
        self._request_done = [each.request_done for each in hearing("request_done")]
        self._attempt_started = [each.attempt_started for each in hearing("attempt_started")]
        self._called = [each.called for each in hearing("called")]
        self._retried = [each.retried for each in hearing("retried")]
        self._gave_up = [each.gave_up for each in hearing("gave_up")]
        self._shared = [each.shared for each in hearing("shared")]
        self._cache_hit = [each.cache_hit for each in hearing("cache_hit")]
        self._rate_limited = [each.rate_limited for each in hearing("rate_limited")]
        self._load_shed = [each.load_shed for each in hearing("load_shed")]
        self._watch = [each.watch for each in hearing("watch")]

    def request_started(self, method: str) -> None:
        for hear in self._request_started:
            hear(method)

    def request_identified(self, call: CallContext, scope: Scope) -> None:
        for hear in self._request_identified:
            hear(call, scope)

    def request_done(self, record: RequestRecord) -> None:
        for hear in self._request_done:
            hear(record)

    def attempt_started(self, operation: str, number: int) -> None:
        for hear in self._attempt_started:
            hear(operation, number)

    def called(self, operation: str, outcome: str, duration: float) -> None:
        for hear in self._called:
            hear(operation, outcome, duration)

    def retried(self, operation: str, attempt: int, error: Exception, wait: float) -> None:
        for hear in self._retried:
            hear(operation, attempt, error, wait)

    def gave_up(self, operation: str, error: Exception, attempt: int, reason: str) -> None:
        for hear in self._gave_up:
            hear(operation, error, attempt, reason)

    def shared(self, operation: str, leader: CallContext | None) -> None:
        for hear in self._shared:
            hear(operation, leader)

    def cache_hit(self, operation: str) -> None:
        for hear in self._cache_hit:
            hear(operation)

    def rate_limited(self) -> None:
        for hear in self._rate_limited:
            hear()

    def load_shed(self) -> None:
        for hear in self._load_shed:
            hear()

    def watch(self, breaker: CircuitBreaker) -> None:
        for hear in self._watch:
            hear(breaker)

"""Signals: what happens in the service. One frozen record for each kind, and one `emit`.

A new signal is a class here, an `emit` where it happens, and an `on` in each listener that cares.
Times are in seconds.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct
from starlette.types import Scope

from event_service.context import CallContext
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from halfopen import CircuitBreaker

# The route of a request whose path no route takes.
UNMATCHED = "unmatched"
# What a route puts into the scope of a request that it answers with a stream.
STREAMED = "event_service.streamed"

logger = logging.getLogger(__name__)


class ClusterFigures(Protocol):
    """What `halfopen.redis.Figures` holds; the package may not be installed."""

    @property
    def joined(self) -> bool: ...
    @property
    def nodes(self) -> int: ...
    @property
    def round_trips(self) -> int: ...
    @property
    def claims_granted(self) -> int: ...
    @property
    def claims_refused(self) -> int: ...
    @property
    def gossip(self) -> float | None: ...


class Signal(Struct, frozen=True, gc=False):
    """The base of all signals."""


class GuardsBuilt(Signal, frozen=True, gc=False):
    """The guards of the upstream were built: subscribe to the breakers, read the others."""

    breakers: Mapping[str, CircuitBreaker]
    bulkhead: Bulkhead
    budget: RetryBudget


class Admission(Protocol):
    """What lets requests in."""

    @property
    def in_flight(self) -> int: ...
    @property
    def max_in_flight(self) -> int: ...


class AdmissionBuilt(Signal, frozen=True, gc=False):
    """What lets requests to the API in was built: read it."""

    admission: Admission


class RequestStarted(Signal, frozen=True, gc=False):
    """A request came in; its `RequestDone` follows without fail."""

    method: str


class RequestIdentified(Signal, frozen=True, gc=False):
    """The request's ids are known, and may still be replaced: nobody has used them yet."""

    call: CallContext
    scope: Scope


class RequestDone(Signal, frozen=True, gc=False):
    """A request is over; its call context is still the current one.

    `route` is its route's template or UNMATCHED, never its path. `duration` of a `streamed` reply
    is how long its reader stayed. `failed_events`: how many a
    partial reply could not have. `error` is set when the request did not end as its route meant.
    """

    method: str
    route: str
    path: str
    status: int
    duration: float
    client: str
    request_id: str
    trace_id: str
    upstream_calls: int
    error: Exception | None
    streamed: bool = False
    sampled: bool = False
    failed_events: int = 0


class AttemptEnded(Signal, frozen=True, gc=False):
    """One attempt at the upstream is over; `outcome` as in metrics.

    `succeeded`: the breaker counted a success, of which it tells nobody.
    """

    operation: str
    outcome: str
    duration: float
    succeeded: bool = False


class BrokenOff(Signal, frozen=True, gc=False):
    """A connection to the upstream broke off, or was refused, with `in_flight` calls under way."""

    operation: str
    in_flight: int


class Retried(Signal, frozen=True, gc=False):
    """The failed `attempt`, counted from 1, is made again after `wait`."""

    operation: str
    attempt: int
    error: Exception
    wait: float


class GaveUp(Signal, frozen=True, gc=False):
    """No further retry: `reason` is attempts, deadline or budget."""

    operation: str
    attempt: int
    error: Exception
    reason: str


class Shared(Signal, frozen=True, gc=False):
    """A caller joined a call that was already under way on behalf of `leader`."""

    operation: str
    leader: CallContext | None


class CacheHit(Signal, frozen=True, gc=False):
    """A read was answered from what an earlier one brought."""

    operation: str


class RateExceeded(Signal, frozen=True, gc=False):
    """A request was refused because its client is over its rate."""


class LoadShed(Signal, frozen=True, gc=False):
    """A request was refused because too many are in flight."""


class ClusterSeen(Signal, frozen=True, gc=False):
    """Where this node stands in its cluster; told once a second."""

    figures: ClusterFigures


class DeliveryAccepted(Signal, frozen=True, gc=False):
    """An event is on disk, to be delivered; not `new` if it was before. `duration`: the commit."""

    delivery_id: str
    new: bool
    duration: float


class DeliveryBegan(Signal, frozen=True, gc=False):
    """An attempt to deliver begins, in a call of its own, which is current until it has ended.

    The call's parent is the request that brought the event, if that was part of a trace.
    """

    call: CallContext
    delivery_id: str


class DeliveryEnded(Signal, frozen=True, gc=False):
    """A delivery is delivered, refused or dead. `age` is the time since it was accepted.

    `accepted_as` is the id of the request that brought the event.
    """

    delivery_id: str
    state: str
    attempts: int
    age: float
    accepted_as: str
    error: Exception | None


class DeliveryFailed(Signal, frozen=True, gc=False):
    """An attempt failed; the next one of this user comes after `rest`."""

    delivery_id: str
    attempts: int
    rest: float
    accepted_as: str
    error: Exception


class DeliveryFenced(Signal, frozen=True, gc=False):
    """An attempt ended after another worker had taken the user over: its outcome is void."""

    delivery_id: str
    accepted_as: str


class DeliveryPutOff(Signal, frozen=True, gc=False):
    """An attempt could not begin: the circuit is open, or there was no room."""

    delivery_id: str


class OutboxFailed(Signal, frozen=True, gc=False):
    """The outbox's database failed while it was `doing` something."""

    doing: str
    error: Exception


class OutboxSeen(Signal, frozen=True, gc=False):
    """How many deliveries are queued in all, and the age of the oldest."""

    pending: int
    oldest: float


S = TypeVar("S", bound=Signal)
Emit = Callable[[Signal], None]


class Listener(Protocol):
    """A log, a metric, a dashboard: it says once which signals it hears."""

    def listen(self, signals: "Signals") -> None: ...


class Signals:
    """Tells each signal to those who listen for its kind, in the order in which they came.

    Listeners run on the event loop, between two steps of a request: they must be quick. An
    exception of a listener is logged; the other listeners and the emitter do not see it.
    """

    def __init__(self) -> None:
        self._listeners: dict[type[Signal], tuple[Callable[[Any], object], ...]] = {}

    def on(self, kind: type[S], listener: Callable[[S], object]) -> None:
        self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

    def emit(self, signal: Signal) -> None:
        for listener in self._listeners.get(type(signal), ()):
            try:
                listener(signal)
            except Exception:
                logger.exception("a listener failed")

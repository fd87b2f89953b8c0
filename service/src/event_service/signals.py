"""Signals: what happens in the service. One frozen record for each kind, and one `emit`.

To add a signal: a class here, an `emit` where it happens, and an `on` in each listener that needs
it. Times are in seconds.
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

# The route of a request that matches no route.
UNMATCHED = "unmatched"
# Scope key that a route sets when it answers with a stream.
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
    """The upstream's guards exist: subscribe to the breakers, read the others."""

    breakers: Mapping[str, CircuitBreaker]
    bulkhead: Bulkhead
    budget: RetryBudget


class Admission(Protocol):
    """Admits requests."""

    @property
    def in_flight(self) -> int: ...
    @property
    def max_in_flight(self) -> int: ...


class AdmissionBuilt(Signal, frozen=True, gc=False):
    """The admission of API requests exists and can be read."""

    admission: Admission


class RequestStarted(Signal, frozen=True, gc=False):
    """A request came in; its `RequestDone` always follows."""

    method: str


class RequestIdentified(Signal, frozen=True, gc=False):
    """The request's ids are known. Listeners may still replace them: nothing has used them yet."""

    call: CallContext
    scope: Scope


class RequestDone(Signal, frozen=True, gc=False):
    """A request has ended; its call context is still current.

    `route` is the template of its route or UNMATCHED, never its path. For a `streamed` reply,
    `duration` is how long the reader stayed. `failed_events`: how many events a partial reply
    lacks. `error` is set if the request ended otherwise than its route intended.
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
    """An attempt at the upstream ended; `outcome` is as in the metrics.

    `succeeded`: the breaker counted a success, for which it emits no event of its own.
    """

    operation: str
    outcome: str
    duration: float
    succeeded: bool = False


class AttemptRefused(Signal, frozen=True, gc=False):
    """The breaker refused an attempt. It emits no event of its own, because that would cost more
    than the refusal.
    """

    operation: str


class BrokenOff(Signal, frozen=True, gc=False):
    """A connection to the upstream broke or was refused, with `in_flight` calls in progress."""

    operation: str
    in_flight: int


class Retried(Signal, frozen=True, gc=False):
    """`attempt`, counted from 1, failed and will be repeated after `wait`."""

    operation: str
    attempt: int
    error: Exception
    wait: float


class GaveUp(Signal, frozen=True, gc=False):
    """There will be no retry; `reason` is attempts, deadline or budget."""

    operation: str
    attempt: int
    error: Exception
    reason: str


class Shared(Signal, frozen=True, gc=False):
    """A caller joined a call that `leader` had begun."""

    operation: str
    leader: CallContext | None


class CacheHit(Signal, frozen=True, gc=False):
    """A read was answered from the cache."""

    operation: str


class RateExceeded(Signal, frozen=True, gc=False):
    """A request was refused because its client exceeded its rate."""


class LoadShed(Signal, frozen=True, gc=False):
    """A request was refused because too many are in flight."""


class ClusterSeen(Signal, frozen=True, gc=False):
    """The node's place in its cluster; emitted once a second."""

    figures: ClusterFigures


class DeliveryAccepted(Signal, frozen=True, gc=False):
    """An event is on disk for delivery; not `new` if it was already. `duration`: the commit's."""

    delivery_id: str
    new: bool
    duration: float


class DeliveryBegan(Signal, frozen=True, gc=False):
    """An attempt to deliver begins; its own call context is current until it ends.

    The call's parent is the request that brought the event, if that was part of a trace.
    """

    call: CallContext
    delivery_id: str


class DeliveryEnded(Signal, frozen=True, gc=False):
    """A delivery is delivered, refused or dead. `age` is the time since acceptance.

    `accepted_as` is the id of the request that brought the event.
    """

    delivery_id: str
    state: str
    attempts: int
    age: float
    accepted_as: str
    error: Exception | None


class DeliveryFailed(Signal, frozen=True, gc=False):
    """An attempt failed; this user's next one follows after `rest`."""

    delivery_id: str
    attempts: int
    rest: float
    accepted_as: str
    error: Exception


class DeliveryFenced(Signal, frozen=True, gc=False):
    """An attempt ended after another worker had taken over the user: its result is void."""

    delivery_id: str
    accepted_as: str


class DeliveryPutOff(Signal, frozen=True, gc=False):
    """An attempt could not start: the circuit is open, or there was no free slot."""

    delivery_id: str


class OutboxFailed(Signal, frozen=True, gc=False):
    """The outbox's database failed while `doing` something."""

    doing: str
    error: Exception


class OutboxSeen(Signal, frozen=True, gc=False):
    """The number of queued deliveries, and the age of the oldest."""

    pending: int
    oldest: float


S = TypeVar("S", bound=Signal)
Emit = Callable[[Signal], None]


class Listener(Protocol):
    """A log, a metric or a dashboard; it registers once for the signals it wants."""

    def listen(self, signals: "Signals") -> None: ...


class Signals:
    """Delivers each signal to the listeners of its kind, in order of registration.

    Listeners run on the event loop, in the middle of a request, so they must be quick. A listener's
    exception is logged; neither the emitter nor other listeners see it.
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

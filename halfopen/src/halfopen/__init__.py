from halfopen.breaker import CircuitBreaker
from halfopen.calls import Guard, Isolation, Permit
from halfopen.cluster import Coordinator, Denied, Grant, Verdict
from halfopen.events import (
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    Event,
    ProbeExpired,
    StateChanged,
)
from halfopen.registry import BreakerRegistry
from halfopen.rules import (
    Backoff,
    CallWindow,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    Reading,
    SlowCallRate,
    TimeWindow,
)
from halfopen.state import CircuitBreakerError, CircuitOpen, Snapshot, State

__all__ = [
    "Backoff",
    "BreakerRegistry",
    "CallFailed",
    "CallIgnored",
    "CallRejected",
    "CallSucceeded",
    "CallWindow",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitOpen",
    "ConsecutiveFailures",
    "Coordinator",
    "Denied",
    "Event",
    "FailureCount",
    "FailureRate",
    "Grant",
    "Guard",
    "Isolation",
    "Permit",
    "ProbeExpired",
    "Reading",
    "SlowCallRate",
    "Snapshot",
    "State",
    "StateChanged",
    "TimeWindow",
    "Verdict",
]

from halfopen.breaker import (
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    Event,
    ProbeExpired,
    StateChanged,
)
from halfopen.calls import Guard, Isolation
from halfopen.cluster import Coordinator, Denied, Grant, Verdict
from halfopen.cooldowns import Backoff
from halfopen.core import Permit
from halfopen.registry import BreakerRegistry
from halfopen.rules import (
    CallWindow,
    ConsecutiveFailures,
    Counter,
    FailureCount,
    FailureRate,
    Reading,
    Rule,
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
    "Counter",
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
    "Rule",
    "SlowCallRate",
    "Snapshot",
    "State",
    "StateChanged",
    "TimeWindow",
    "Verdict",
]

from halfopen.breaker import CircuitBreaker
from halfopen.errors import CircuitBreakerError, CircuitOpen
from halfopen.events import (
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    Event,
    ProbeExpired,
    StateChanged,
)
from halfopen.permit import Guard, Isolation, Permit
from halfopen.recovery import Backoff
from halfopen.registry import BreakerRegistry
from halfopen.rules import ConsecutiveFailures, FailureCount, FailureRate, Reading, SlowCallRate
from halfopen.state import Snapshot, State
from halfopen.windows import CallWindow, TimeWindow

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
    "Event",
    "FailureCount",
    "FailureRate",
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
]

"""Breakers in the log, through the standard library: `log_changes(payments)`."""

import logging
from collections.abc import Callable
from typing import Any

from halfopen.breaker import CircuitBreaker, ProbeExpired, StateChanged
from halfopen.registry import BreakerRegistry
from halfopen.state import CLOSED, HALF_OPEN


def log_changes(
    breakers: CircuitBreaker | BreakerRegistry[Any], logger: logging.Logger | None = None
) -> Callable[[], None]:
    """Log each change of state and each probe that lost its slot. Returns what ends it.

    Recovery is information, all else a warning. A handler that formats records as JSON finds
    `breaker`, `old`, `new` and `reason` as attributes of the record. The logger is `halfopen`
    unless another is given.
    """
    log = logger or logging.getLogger("halfopen")

    def changed(change: StateChanged) -> None:
        recovers = change.new in {CLOSED, HALF_OPEN}
        log.log(
            logging.INFO if recovers else logging.WARNING,
            "circuit %s: %s -> %s (%s)",
            change.breaker.name,
            change.old,
            change.new,
            change.reason,
            extra={
                "breaker": change.breaker.name,
                "old": change.old.value,
                "new": change.new.value,
                "reason": change.reason,
            },
        )

    def expired(event: ProbeExpired) -> None:
        name = event.breaker.name
        log.warning("circuit %s: a probe is silent", name, extra={"breaker": name})

    leave_changes = breakers.on(StateChanged, changed)
    leave_probes = breakers.on(ProbeExpired, expired)

    def leave() -> None:
        leave_changes()
        leave_probes()

    return leave

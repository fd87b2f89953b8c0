"""Breaker transitions in words."""

from halfopen import (
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    SlowCallRate,
    StateChanged,
    TimeWindow,
)


def describe(event: StateChanged, reason: str) -> str:
    """Such as `addEvent: closed → open (3 failures within 30 s)`."""
    old, new = (state.value.replace("_", "-") for state in (event.old, event.new))
    return f"{event.breaker.name}: {old} → {new} ({reason})"


def reason_of(event: StateChanged) -> str:
    """Why the state changed, without the code that says so in `event.reason`."""
    rules = (reading.rule for reading in event.breaker.snapshot().rules)
    return next((rule_text(rule) for rule in rules if str(rule) == event.reason), event.reason)


def rule_text(rule: object) -> str:
    match rule:
        case ConsecutiveFailures():
            return f"{rule.n} failures in a row"
        case FailureCount():
            return f"{rule.n} failures within {rule.within:g} s"
        case FailureRate():
            return f"{rule.rate * 100:g} % failures in {_calls(rule)}"
        case SlowCallRate():
            return f"{rule.rate * 100:g} % over {rule.slower_than:g} s in {_calls(rule)}"
        case _:
            return str(rule)


def _calls(rule: FailureRate | SlowCallRate) -> str:
    over = rule.over
    within = f" within {over.seconds:g} s" if isinstance(over, TimeWindow) else ""
    return f"{rule.minimum_calls} or more calls{within}"

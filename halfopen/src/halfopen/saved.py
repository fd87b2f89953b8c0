"""What a restart should not forget: in seconds left and wall time, never in monotonic time."""

import time
from collections.abc import Mapping

from halfopen import checks
from halfopen.circuit import Circuit
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, OPEN, State

_VERSION = 1


def export(circuit: Circuit, now: float) -> dict[str, object]:
    period = circuit.period
    state, remaining = circuit.state, 0.0
    if state is ISOLATED:
        state = CLOSED if period.until is None else OPEN
    elif state is HALF_OPEN:
        state = OPEN
    if state is OPEN and circuit.state is not HALF_OPEN:
        remaining = max((period.until or 0.0) - now, 0.0)
    return {
        "version": _VERSION,
        "state": state.value,
        "remaining": remaining,
        "at": time.time(),
        "cooldowns": circuit.step if state is OPEN else 0,
    }


def restore(circuit: Circuit, saved: Mapping[str, object], now: float) -> Circuit:
    """Raises `ValueError` or `TypeError` if `saved` is nothing that `export` returned."""
    if not isinstance(saved, Mapping):
        raise TypeError(f"state must be what export() returned, not {saved!r}")
    try:
        version, state = saved["version"], State(str(saved["state"]))
        remaining, at, step = saved["remaining"], saved["at"], saved["cooldowns"]
        if version != _VERSION or state not in {CLOSED, OPEN}:
            raise ValueError(f"version {version}, {state}")  # noqa: TRY301
        remaining = checks.a_number("remaining", remaining)
        at = checks.a_number("at", at)
        step = int(checks.a_number("cooldowns", step))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"state must be what export() returned: {error!r}") from error
    if state is CLOSED:
        return circuit
    passed = max(time.time() - at, 0.0)  # a wall clock may have been set back
    return circuit._replace(step=step).enter(
        OPEN,
        now,
        "restored",
        until=now + max(remaining - passed, 0.0),
        probe_limit=circuit.policy.probe_timeout or circuit.policy.cooldown.usual(max(step - 1, 0)),
    )

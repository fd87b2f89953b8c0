"""The state of every circuit in all workers of a server."""

from collections import Counter
from typing import NamedTuple

from event_service.telemetry.cells import Cells
from halfopen import State

_WORST_FIRST = (State.ISOLATED, State.OPEN, State.HALF_OPEN, State.CLOSED)


class Circuit(NamedTuple):
    """`states`: how many workers have the circuit in each state; states without a worker are left
    out.
    """

    name: str
    states: dict[State, int]

    @property
    def worst(self) -> State:
        return next(state for state in _WORST_FIRST if state in self.states)

    @property
    def where(self) -> str:
        """In how many of the workers it is in its worst state; "" where there is only one."""
        workers = sum(self.states.values())
        return f"in {self.states[self.worst]} of {workers} workers" if workers > 1 else ""


def circuits(cells: Cells) -> list[Circuit]:
    """Every circuit and its states, read from the workers' metrics now."""
    found: dict[str, Counter[State]] = {}
    for page in cells.pages():
        if not page.alive:
            continue
        for row in page.rows:
            if row.metric == "circuit_breaker_state" and row.values[0]:
                name, state = row.labels
                found.setdefault(name, Counter())[State(state)] += 1
    return [Circuit(name, dict(states)) for name, states in found.items()]

from enum import StrEnum


class State(StrEnum):
    """Where a circuit stands; the values serve as they are in logs and metric labels."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"

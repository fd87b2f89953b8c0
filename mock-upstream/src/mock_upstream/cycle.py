from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec


class Cycle(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Accepts so many calls, refuses so many, and so on round. With `refuse` 0 it never refuses.

    `outage`: refusals end so many seconds after the first one, however few there were; without
    it only their number ends them.
    """

    accept: Annotated[int, msgspec.Meta(ge=0)]
    refuse: Annotated[int, msgspec.Meta(ge=0)]
    outage: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None


class Turns:
    """Where a cycle stands."""

    def __init__(self, cycle: Cycle, clock: Callable[[], float]) -> None:
        self.cycle = cycle
        self._clock = clock
        self._calls = 0
        self._outage_ends = 0.0

    def accepts_next(self) -> bool:
        """Whether the next call is accepted; counts it."""
        accept, refuse, outage = self.cycle.accept, self.cycle.refuse, self.cycle.outage
        if not refuse:
            return True
        if outage and self._calls > accept and self._clock() >= self._outage_ends:
            self._calls = 0
        accepted = self._calls < accept
        if outage and self._calls == accept:
            self._outage_ends = self._clock() + outage
        self._calls = (self._calls + 1) % (accept + refuse)
        return accepted

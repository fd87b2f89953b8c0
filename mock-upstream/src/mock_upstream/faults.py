from __future__ import annotations

import random
from typing import Annotated, Literal, NamedTuple

import msgspec

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
_HeaderName = Annotated[str, msgspec.Meta(pattern=r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")]
_HeaderValue = Annotated[str, msgspec.Meta(pattern=r"\A[\t\x20-\x7e]*\Z")]

_FRAMING = {"connection", "content-length", "transfer-encoding"}

Mode = Literal["none", "reset", "hang", "garbage", "truncate", "empty", "slow-body", "oversize"]


class Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What goes wrong with the calls of one operation.

    `delay` and up to `jitter` more seconds pass before every answer. Then a share `error_rate` of
    the calls fails: with `mode`, or where that is none by answering `status` (500) with `headers`
    and `body`. Without `error_rate` every call fails if `status`, `mode` or `body` asks for it,
    otherwise none. The fault ends after `first_n` calls. `after` says how much of a good answer
    is sent before the modes reset and hang strike.
    """

    delay: _Seconds = 0.0
    jitter: _Seconds = 0.0
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    mode: Mode = "none"
    first_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    headers: dict[_HeaderName, _HeaderValue] = {}
    body: str | None = None
    after: Literal["nothing", "half-headers", "headers", "half-body"] = "nothing"

    def __post_init__(self) -> None:
        if framing := _FRAMING.intersection(name.lower() for name in self.headers):
            raise ValueError(f"`headers` may not contain {', '.join(sorted(framing))}")
        if self.after != "nothing" and self.mode not in {"reset", "hang"}:
            raise ValueError("`after` needs `mode` reset or hang")

    @property
    def name(self) -> str:
        """What the journal calls it."""
        return "status" if self.mode == "none" else self.mode

    @property
    def share(self) -> float:
        """The share of calls that fail, from 0 to 1."""
        if self.error_rate is not None:
            return self.error_rate
        asked = self.mode != "none" or self.status is not None or self.body is not None
        return 1.0 if asked else 0.0


class Strike(NamedTuple):
    """What one call suffers: so many seconds of delay, and then the failure, if any."""

    delay: float
    failure: Fault | None


class _Active:
    def __init__(self, fault: Fault, chance: random.Random) -> None:
        self.fault = fault
        self.left = fault.first_n
        self._chance = chance

    def strike(self) -> Strike:
        # Two draws whatever the fault needs, so that changing one of its fields leaves the
        # sequence of the other as it was.
        failing, jitter = self._chance.random(), self._chance.random()
        return Strike(
            self.fault.delay + self.fault.jitter * jitter,
            self.fault if failing < self.fault.share else None,
        )


class Faults:
    """The fault of each operation. Same seed, same faults: setting one begins its sequence."""

    def __init__(self, operations: tuple[str, ...], seed: int) -> None:
        self._operations = operations
        self._seed = seed
        self._active: dict[str, _Active] = {}

    def set(self, operation: str, fault: Fault) -> None:
        """Replace the operation's fault; raises KeyError for an unknown operation."""
        self._check(operation)
        self._active[operation] = _Active(fault, random.Random(f"{self._seed}/{operation}"))

    def get(self, operation: str) -> Fault:
        """The operation's fault as it stands, with `first_n` counted down; harmless if none."""
        self._check(operation)
        active = self._active.get(operation)
        if active is None:
            return Fault()
        return msgspec.structs.replace(active.fault, first_n=active.left)

    def active(self) -> dict[str, Fault]:
        return {operation: self.get(operation) for operation in self._active}

    def clear(self, operation: str) -> None:
        self._check(operation)
        self._active.pop(operation, None)

    def clear_all(self) -> None:
        self._active.clear()

    def strike(self, operation: str) -> Strike | None:
        """Decide the next call of the operation, and count it."""
        active = self._active.get(operation)
        if active is None:
            return None
        if active.left is not None:
            active.left -= 1
            if not active.left:
                del self._active[operation]
        return active.strike()

    def _check(self, operation: str) -> None:
        if operation not in self._operations:
            raise KeyError(operation)

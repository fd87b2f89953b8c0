"""The interface between a breaker and a cluster: the protocol `Coordinator`.

A breaker that has joined a cluster remains the data path. It decides about each call on its own,
and a healthy call does not involve the cluster. The breaker calls its `Coordinator` only in these
four cases; the coordinator calls `CircuitBreaker.follow`:

- A failure counts while the circuit is closed: `failed()`. If that trips a rule, the circuit opens
  here at once, and `tripped()` follows.
- A call comes after the cooldown: it takes the probe's slot, so that others are refused meanwhile,
  and asks for a grant: `await claim()` where the caller can wait, else `ask()`.
- The granted probe ends: `settled()`.
- An operator trips, resets, isolates or releases it: `steered()`.

The circuit opens and closes on the results of its own calls without waiting for the others. What
the cluster decides then comes through `follow`, whose epoch says which of two decisions is newer.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from halfopen.state import State


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for one probe.

    `fence` is the epoch of this probe: the breaker takes it over, so that to follow the cluster
    into the half-open state of its own probe is no news. A grant whose fence is below the epoch
    that the breaker follows is void. `lease` is how many seconds it is good for, counted from the
    moment just before `claim()` or `ask()` was called. The breaker looks at its own clock right
    before the call starts: past the lease it does not start. A verdict after the lease is void.
    """

    fence: int
    lease: float


@dataclass(frozen=True, slots=True)
class Denied:
    """No grant: do not ask again for `retry_after` seconds, unless `follow` changes the state."""

    retry_after: float


class Verdict(StrEnum):
    """How a granted probe ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    # Cancelled, ignored, forgotten, or never started: another may be granted at once.
    NEUTRAL = "neutral"


class Coordinator(Protocol):
    """Speaks for the cluster. Attached with `CircuitBreaker.join`.

    All methods but `claim` return at once: they note what to do and do it in the background. They
    are called in the thread of the caller, with no lock held, and may use the breaker. What they
    raise is logged and changes nothing; a `claim` or `ask` that raises counts as
    `Denied(0.0)`. A coordinator that cannot reach the cluster grants probes itself, so that the
    breaker goes on alone.
    """

    def failed(self) -> None:
        """A failure counted while the circuit was closed."""

    def tripped(self, remaining: float) -> None:
        """A rule opened the circuit here for `remaining` seconds. Called after `failed`."""

    async def claim(self) -> Grant | Denied:
        """Ask for a grant and wait for the answer. At most one at a time for each breaker.

        Awaited in the task of the caller, who may be cancelled: then give back whatever is, or
        will be, granted. If the cluster has closed the circuit meanwhile, call `follow` and deny:
        after a denial the breaker looks again, and lets the call in if it is closed.
        """

    def ask(self) -> Grant | Denied:
        """The same for a caller who cannot wait: a plain function, maybe on the event loop.

        It never blocks. Hand out the grant that an earlier question brought in and that nobody
        has taken; its `lease` is what remains. Else start asking in the background and deny: this
        caller is refused, and the first one after `retry_after` gets what came. Give back a grant
        that nobody fetched in time.
        """

    def settled(self, grant: Grant, verdict: Verdict, state: State, remaining: float) -> None:
        """The granted probe has ended, once for each grant that the breaker was given.

        `state` is where it left the circuit, `remaining` how many seconds it stays open.
        A success may leave it `HALF_OPEN`, if `success_threshold` asks for more of them.
        """

    def steered(self, state: State, remaining: float) -> None:
        """An operator brought the circuit into `state`: tripped, reset, isolated or released it.

        `remaining` is how many seconds it stays open; 0 in other states.
        """

"""The state machine of a circuit, with immutable values.

A `Circuit` is a value. Its methods return the next circuit: `admit` a call, `settle` its outcome,
`enter` another state. The breaker replaces one circuit by the next in a single step, so code that
interrupts it at any line sees the old or the new one, never something in between.

Each call has the `Period` in which it was admitted: one stay in one state. Its outcome counts only
while the circuit is still in that period. Later outcomes are ignored.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple, TypeAlias

from halfopen.cooldowns import Cooldown
from halfopen.in_flight import CallsInFlight
from halfopen.rules import Counter, Reading, Rule
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, OPEN, State
from halfopen.verdicts import stand_in

logger = logging.getLogger("halfopen")

_DOUBLINGS = 20  # more would only make a longer integer
_MOST_EVENTS_WAITING = 4_000


class Kind(Enum):
    """The kinds of events."""

    __hash__ = object.__hash__  # that of an enum is a function in Python

    STATE_CHANGED = auto()
    CALL_SUCCEEDED = auto()
    CALL_FAILED = auto()
    CALL_IGNORED = auto()
    CALL_REJECTED = auto()
    PROBE_EXPIRED = auto()


class Fact:
    """An event before it has a type: its kind and its fields. `ticket` tells it from its like."""

    __slots__ = ("fields", "kind", "ticket")

    def __init__(self, kind: Kind, fields: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.fields = fields
        self.ticket = object()


Listeners: TypeAlias = Mapping[Kind, tuple[Callable[[object, Any], None], ...]]
Key: TypeAlias = object
ELSEWHERE: Key = "the probe of another node"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that the state machine uses."""

    rules: tuple[Rule, ...]
    fresh: tuple[Counter, ...]  # of each rule: has heard of no call
    limits: tuple[float | None, ...]  # of each rule: beyond it a call is slow
    cooldown: Cooldown
    success_threshold: int
    successes_needed: int
    probe_timeout: float | None

    @property
    def slower_than(self) -> float | None:
        return min((limit for limit in self.limits if limit is not None), default=None)


class Period:
    """One stay in one state."""

    __slots__ = ("in_flight", "last_failure", "probe_limit", "since", "state", "until")

    def __init__(
        self,
        state: State,
        since: float,
        *,
        until: float | None = None,
        probe_limit: float = 0.0,
        last_failure: BaseException | None = None,
        in_flight: CallsInFlight | None = None,
    ) -> None:
        self.state = state
        self.since = since
        # Open: when the cooldown ends. Isolated: the same of the open circuit beneath, if it was.
        self.until = until
        self.probe_limit = probe_limit
        self.last_failure = last_failure  # what opened the circuit
        self.in_flight = in_flight  # closed, and only if a rule asks how long calls take


class Trial(NamedTuple):
    """The progress of a half-open circuit's probes."""

    probes: Mapping[Key, float]  # those with a slot, and when each will lose it
    overdue: frozenset[Key]  # those that lost it; their verdicts still count
    successes: int
    failures: int


NOTHING_TRIED = Trial({}, frozenset(), 0, 0)


class Cause:
    """Why a circuit may open. Calls the user's code only if it opens, and then once."""

    __slots__ = ("_cooldown", "_seconds", "_stand_in", "error")

    def __init__(self, cooldown: Cooldown, error: BaseException | None) -> None:
        self.error = error
        self._cooldown = cooldown
        self._seconds: dict[int, float] = {}
        self._stand_in: BaseException | None = None

    def seconds(self, step: int) -> float:
        if step not in self._seconds:
            error = self.error if isinstance(self.error, Exception) else None
            self._seconds[step] = self._cooldown.take(step, error)
        return self._seconds[step]

    def stand_in(self) -> BaseException | None:
        if self._stand_in is None and self.error is not None:
            self._stand_in = stand_in(self.error)
        return self._stand_in


class Circuit(NamedTuple):
    policy: Policy
    period: Period
    counters: tuple[Counter, ...]  # what the rules have counted since it was closed
    trial: Trial
    step: int  # how many cooldowns it has had since it was closed
    failed: int
    opened: int
    epoch: int  # the newest decision of a cluster
    isolations: frozenset[object]  # handles that keep it isolated
    listeners: Listeners
    waiting: tuple[Fact, ...]  # facts that the listeners have not heard yet
    dropped: int  # facts that they never will

    @property
    def state(self) -> State:
        return self.period.state

    # Admit

    def admit(self, key: Key, now: float) -> "tuple[Circuit, bool]":
        """Admit a call at `now`. If it is a probe, `key` identifies it."""
        circuit = self
        if circuit.state is OPEN and now >= (circuit.period.until or 0.0):
            circuit = circuit.enter(HALF_OPEN, now, "cooldown elapsed")
        if circuit.state is HALF_OPEN:
            circuit = circuit.expire_probes(now)
            trial = circuit.trial
            if len(trial.probes) >= circuit.probes_allowed:
                return circuit, False
            probes = {**trial.probes, key: now + circuit.period.probe_limit}
            return circuit._replace(trial=trial._replace(probes=probes)), True
        if circuit.state is CLOSED:
            circuit = circuit.trip_if_calls_hang(now)
        return circuit, circuit.state is CLOSED

    @property
    def probes_allowed(self) -> int:
        """Limit for probes in flight: it doubles, up to the number of missing successes."""
        successes = self.trial.successes
        return min(1 << min(successes, _DOUBLINGS), self.policy.successes_needed - successes)

    def expire_probes(self, now: float) -> "Circuit":
        probes, overdue = self.trial.probes, self.trial.overdue
        late = [key for key, deadline in probes.items() if deadline <= now]
        if not late:
            return self
        mine = [key for key in late if key is not ELSEWHERE]
        trial = self.trial._replace(
            probes={key: deadline for key, deadline in probes.items() if deadline > now},
            overdue=overdue.union(mine),
        )
        return self._replace(trial=trial).tell(*[Fact(Kind.PROBE_EXPIRED) for _ in mine])

    def wait(self, now: float) -> float:
        """Seconds until a call may be admitted that is refused now."""
        if self.state is OPEN:
            return max((self.period.until or 0.0) - now, 0.0)
        if self.state is ISOLATED:
            return self.policy.cooldown.usual(self.step)
        if len(self.trial.probes) < self.probes_allowed:
            return 0.0
        return max(min(self.trial.probes.values()) - now, 0.0)

    # Settle

    def settle(
        self, period: Period, key: Key, now: float, duration: float, cause: Cause, *, failed: bool
    ) -> "tuple[Circuit, bool]":
        """Record the verdict on a call, and return whether it counts."""
        if period is not self.period:
            return self.tell(Fact(Kind.CALL_IGNORED, (cause.error,))), False
        told = Fact(Kind.CALL_FAILED, (cause.error,)) if failed else Fact(Kind.CALL_SUCCEEDED)
        if self.state is CLOSED:
            counters = self._counted(now, duration, failed=failed)
            circuit = self._replace(counters=counters, failed=self.failed + failed).tell(told)
            return circuit.trip_if_a_rule_says_so(now, cause), True
        circuit = self.expire_probes(now)
        trial = circuit.trial
        if key not in trial.probes and key not in trial.overdue:
            return circuit, False  # settled meanwhile
        limit = self.policy.slower_than
        slow = limit is not None and duration > limit
        trial = circuit.without(key).trial._replace(
            successes=trial.successes + (not failed and not slow),
            failures=trial.failures + (failed or slow),
        )
        circuit = circuit._replace(trial=trial, failed=self.failed + failed).tell(told)
        if trial.failures > self.policy.success_threshold - self.policy.successes_needed:
            reason = "a probe failed" if failed else "a probe was slow"
            return circuit.open(now, reason, cause), True
        if trial.successes == self.policy.successes_needed:
            return circuit.enter(CLOSED, now, "recovered"), True
        return circuit, True

    def ignore(
        self, period: Period, key: Key, now: float, error: BaseException | None
    ) -> "tuple[Circuit, bool]":
        """End a call that does not count. A probe with a slot releases it."""
        circuit, counts = self, period is self.period
        if counts and self.state is HALF_OPEN:
            circuit = self.expire_probes(now)
            counts = key in circuit.trial.probes
            circuit = circuit.without(key)
        return circuit.tell(Fact(Kind.CALL_IGNORED, (error,))), counts

    def without(self, key: Key) -> "Circuit":
        """Remove the probe with that key."""
        trial = self.trial
        if key not in trial.probes and key not in trial.overdue:
            return self
        probes = {each: deadline for each, deadline in trial.probes.items() if each is not key}
        return self._replace(trial=trial._replace(probes=probes, overdue=trial.overdue - {key}))

    def hold_slot(self, key: Key, until: float) -> "Circuit":
        """Keep the slot taken until then: by a granted probe, or for one of another node."""
        probes = {**self.trial.probes, key: until}
        return self._replace(trial=self.trial._replace(probes=probes))

    def trip_if_calls_hang(self, now: float) -> "Circuit":
        in_flight = self.period.in_flight
        if in_flight is None or not in_flight.longer_than(self.policy.slower_than, now):
            return self
        return self.trip_if_a_rule_says_so(now, Cause(self.policy.cooldown, None))

    def trip_if_a_rule_says_so(self, now: float, cause: Cause) -> "Circuit":
        try:
            for rule, counter, hung in zip(
                self.policy.rules, self.counters, self._hung(now), strict=True
            ):
                if counter.trips(now, hung):
                    return self.open(now, str(rule), cause)
        except Exception:
            logger.exception("a rule raised, it opens nothing")
        return self

    def _counted(self, now: float, duration: float, *, failed: bool) -> tuple[Counter, ...]:
        try:
            return tuple([each.after(now, duration, failed=failed) for each in self.counters])
        except Exception:
            logger.exception("a rule raised, the call is not counted")
            return self.counters

    def readings(self, now: float) -> tuple[Reading, ...]:
        hung = self._hung(now)
        return tuple(
            counter.reading(now, calls) for counter, calls in zip(self.counters, hung, strict=True)
        )

    def _hung(self, now: float) -> list[int]:
        in_flight = self.period.in_flight
        if in_flight is None:
            return [0] * len(self.counters)
        return [in_flight.longer_than(limit, now) for limit in self.policy.limits]

    # Enter

    def open(
        self, now: float, reason: str, cause: Cause, seconds: float | None = None
    ) -> "Circuit":
        """Open, or restart the cooldown, which repeats the same step and is not a new opening."""
        again = self.state is OPEN
        step = max(self.step - again, 0)
        if seconds is None:
            until = now + cause.seconds(step)
            circuit = self._replace(step=step + 1)
        else:
            until, circuit = now + seconds, self
        return circuit._replace(opened=self.opened + (not again)).enter(
            OPEN,
            now,
            reason,
            until=until,
            probe_limit=self.policy.probe_timeout or self.policy.cooldown.usual(step),
            last_failure=cause.stand_in(),
        )

    def enter(
        self,
        state: State,
        now: float,
        reason: str,
        *,
        until: float | None = None,
        probe_limit: float | None = None,
        last_failure: BaseException | None = None,
    ) -> "Circuit":
        """Begin another period. A closed one starts from zero; others keep what they do not set."""
        old = self.period
        if state is CLOSED:
            timed = self.policy.slower_than is not None
            period = Period(state, now, in_flight=CallsInFlight() if timed else None)
            circuit = self._replace(counters=self.policy.fresh, step=0)
        else:
            period = Period(
                state,
                now,
                until=until,
                probe_limit=old.probe_limit if probe_limit is None else probe_limit,
                last_failure=last_failure if state is OPEN else old.last_failure,
            )
            circuit = self
        if state is old.state:
            period.since = old.since
        circuit = circuit._replace(period=period, trial=NOTHING_TRIED)
        if state is old.state:
            return circuit
        return circuit.tell(Fact(Kind.STATE_CHANGED, (old.state, state, reason)))

    def isolate(self, handle: object, now: float, reason: str) -> "Circuit":
        circuit = self._replace(isolations=self.isolations | {handle})
        if self.state is ISOLATED:
            return circuit
        until = self.period.until
        if self.state is HALF_OPEN:
            until = self.trial.probes.get(ELSEWHERE, now)
        return circuit.enter(ISOLATED, now, reason, until=until)

    def release(self, handle: object, now: float, reason: str) -> "Circuit":
        """Release a handle. After the last one, the circuit is closed from zero, or open again."""
        if handle not in self.isolations:
            return self
        circuit = self._replace(isolations=self.isolations - {handle})
        if circuit.isolations:
            return circuit
        beneath = self.period
        if beneath.until is None:
            return circuit.enter(CLOSED, now, reason)
        return circuit.enter(
            OPEN, now, reason, until=beneath.until, last_failure=beneath.last_failure
        )

    def follow(self, state: State, until: float, now: float) -> "Circuit":
        """Adopt the cluster's state; if isolated by an operator, when that is released."""
        reason = "followed the cluster"
        if state is ISOLATED:
            return self.isolate(ELSEWHERE, now, reason)
        circuit = self._replace(isolations=self.isolations - {ELSEWHERE})
        probe_limit = self.policy.probe_timeout or self.policy.cooldown.usual(self.step)
        if circuit.isolations:
            beneath = None if state is CLOSED else until
            return circuit.enter(ISOLATED, now, reason, until=beneath, probe_limit=probe_limit)
        if state is CLOSED:
            return circuit if self.state is CLOSED else circuit.enter(CLOSED, now, reason)
        if state is OPEN:
            circuit = circuit._replace(opened=self.opened + (self.state is not OPEN))
        failure = self.period.last_failure
        circuit = circuit.enter(
            state, now, reason, until=until, probe_limit=probe_limit, last_failure=failure
        )
        return circuit.hold_slot(ELSEWHERE, until) if state is HALF_OPEN else circuit

    def leave_cluster(self, now: float) -> "Circuit":
        """End an isolation by the cluster; everything else stays."""
        return self.release(ELSEWHERE, now, "left the cluster")

    # Tell

    def tell(self, *facts: Fact) -> "Circuit":
        """Queue events for the listeners. If too many wait, the oldest are dropped."""
        heard = [fact for fact in facts if fact.kind in self.listeners]
        if not heard:
            return self
        waiting = (*self.waiting, *heard)
        kept = waiting[-_MOST_EVENTS_WAITING:]
        return self._replace(waiting=kept, dropped=self.dropped + len(waiting) - len(kept))

    def told(self, fact: Fact) -> "Circuit":
        if not self.waiting or self.waiting[0] is not fact:  # it has made room for others
            return self
        return self._replace(waiting=self.waiting[1:])

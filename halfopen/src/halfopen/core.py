"""The only mutable part: which circuit is the latest, and which listeners there are.

There is no lock. A change computes the next circuit and links it to the latest one; if another
change was faster, it starts again from that. So no call waits for another, and a signal handler, a
finalizer or a forked child never finds a lock taken.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from halfopen.circuit import (
    ELSEWHERE,
    Cause,
    Circuit,
    Fact,
    Key,
    Kind,
    Period,
)
from halfopen.cluster import Coordinator, Denied, Grant, Verdict
from halfopen.cooldowns import Cooldown
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, OPEN, CircuitOpen
from halfopen.turn import Turn
from halfopen.verdicts import Judge

T = TypeVar("T")
logger = logging.getLogger("halfopen")

# Seconds. A delivery that takes longer than the first is slow. A caller that has spent the second
# on slow ones leaves the remaining events to the next caller.
_SLOW = 0.0005
_MOST_SPENT = 0.05


class Moment:
    """A circuit, and what calls look at first. It is the latest while nothing follows it.

    Two kinds of call take a fast path past all the rest. While `healthy` names the period of a
    call, its success changes nothing, and nobody wants to hear of it. Until `refuses_until` every
    call is refused, and nobody wants to hear of that.
    """

    __slots__ = (
        *("_base", "_judges_results", "_success_unheard", "admits_all", "counters"),
        *("counts_failure", "counts_success", "failed", "following", "healthy", "period"),
        *("refuses_until", "steady"),
    )

    def __init__(self, circuit: Circuit, *, judges_results: bool, shadow: bool) -> None:
        self._base = circuit
        # Maybe newer than those of `_base`.
        self.counters = circuit.counters
        self.failed = circuit.failed
        self.following: dict[None, Moment] = {}
        self.period = period = circuit.period
        self.refuses_until = 0.0
        self.admits_all = period.state is CLOSED and period.in_flight is None
        self._judges_results = judges_results
        heard, waiting = circuit.listeners, circuit.waiting
        self._success_unheard = not waiting and Kind.CALL_SUCCEEDED not in heard
        self.steady: Period | None = None  # its successes change nothing, but may be told
        self.healthy: Period | None = None
        # In this period, a success, or a failure that opens nothing, changes only counts.
        self.counts_success: Period | None = None
        self.counts_failure: Period | None = None
        if self.admits_all:
            if not waiting and Kind.CALL_FAILED not in heard:
                self.counts_failure = period
            self._choose_paths([counter.hears_successes for counter in circuit.counters])
        elif period.state is OPEN and not shadow and Kind.CALL_REJECTED not in heard:
            self.refuses_until = period.until or 0.0

    def _choose_paths(self, hears_successes: list[bool]) -> None:
        if True in hears_successes:
            self.steady = self.healthy = None
            self.counts_success = self.period if self._success_unheard else None
            return
        self.steady = self.period
        self.healthy = self.period if self._success_unheard and not self._judges_results else None
        self.counts_success = None

    @property
    def circuit(self) -> Circuit:
        circuit = self._base
        if circuit.counters is not self.counters:
            circuit = circuit._replace(counters=self.counters, failed=self.failed)
            self._base = circuit
        return circuit

    def counted(self, now: float, *, failed: bool) -> "Moment | None":
        """The moment after an outcome that changes only counts; None if it may do more.

        A shortcut for `Circuit.settle`, which makes the calls cheap that a rule counts.
        """
        try:
            after = [counter.after(now, 0.0, failed=failed) for counter in self.counters]
            for counter in after:
                if counter.trips(now, 0):
                    return None
            hears_successes = [counter.hears_successes for counter in after]
        except Exception:  # noqa: BLE001 - `settle` asks again, and logs it
            return None
        moment = Moment.__new__(Moment)
        moment._base = self._base  # noqa: SLF001 - one of us
        moment._judges_results = self._judges_results  # noqa: SLF001
        moment._success_unheard = self._success_unheard  # noqa: SLF001
        moment.counters = tuple(after)
        moment.failed = self.failed + failed
        moment.following = {}
        moment.admits_all = True
        moment.period = self.period
        moment.refuses_until = 0.0
        moment.counts_failure = self.counts_failure
        moment._choose_paths(hears_successes)  # noqa: SLF001
        return moment


_NO_PERIOD = Period(ISOLATED, 0.0)


class Permit:
    """The right to make one call, and the duty to say how it went.

    Each verdict returns whether it counted: not if there was one before, nor if the circuit has
    changed its state since (the result is late). A probe that has lost its slot still counts while
    the circuit is half-open; to ignore it then does not, because there is no slot to give back.
    `failure_on` and `ignore` are not asked: who settles by hand decides by hand.
    """

    __slots__ = ("__weakref__", "_core", "_unsettled", "grant", "key", "lease_ends", "period")

    def __init__(self, core: "Core", period: Period, key: Key = None) -> None:
        self._core = core
        self.period = period
        self.key = key  # names a probe, or a call whose time matters
        self.grant: Grant | None = None  # of a cluster, good until `lease_ends`
        self.lease_ends = 0.0
        # Set last: a permit that is only half made has nothing to release.
        self._unsettled = {None: True}

    @property
    def settled(self) -> bool:
        return not self._unsettled

    def claim(self) -> bool:
        """True for one caller only, because a dictionary gives its item away in a single step."""
        return self._unsettled.pop(None, False)

    def success(self) -> bool:
        return self._core.settle(self, None, failed=False)

    def failure(self, exc: BaseException | None = None) -> bool:
        if exc is not None and not isinstance(exc, BaseException):
            raise TypeError(f"failure() takes an exception or nothing, not {exc!r}")
        return self._core.settle(self, exc, failed=True)

    def ignore(self) -> bool:
        return self._core.ignore(self, None)

    def may_start(self, takes: float = 0.0) -> bool:
        """Whether the call may still begin; to be asked after a wait between permit and call.

        False if the circuit has changed its state since, and for a probe that has lost its slot or
        whose lease of a cluster ends within `takes` seconds: another may be on its way by then.
        Call `ignore()` and acquire another permit.
        """
        return self._core.may_start(self, takes)

    def pause(self) -> None:
        """Stop counting the call's time, because the callee waits for its caller."""

    def resume(self) -> None:
        """Count the call's time again."""

    def duration(self, now: float) -> float:  # noqa: ARG002 - no rule asks for it
        return 0.0


class HeldPermit(Permit):
    """A probe, which holds a slot, or a call whose time matters. If abandoned, it ends both."""

    __slots__ = ("_running_since", "_spent", "started")

    def __init__(self, core: "Core", period: Period, now: float) -> None:
        self.started = now
        self._running_since: float | None = now
        self._spent = 0.0
        super().__init__(core, period, object())

    def pause(self) -> None:
        self._spent, self._running_since = self.duration(self._core.clock()), None
        if self.period.in_flight is not None:
            self.period.in_flight.end(self.key)

    def resume(self) -> None:
        self._running_since = now = self._core.clock()
        if self.period.in_flight is not None and not self.settled:
            self.period.in_flight.begin(self.key, now)

    def duration(self, now: float) -> float:
        since = self._running_since
        return self._spent if since is None else self._spent + now - since

    def __del__(self) -> None:
        if hasattr(self, "_unsettled") and self.claim():
            self._core.abandon(self)


class Core:
    def __init__(
        self,
        name: str,
        circuit: Circuit,
        *,
        judge: Judge,
        clock: Callable[[], float],
        shadow: bool,
        event: Callable[[Kind, tuple[Any, ...]], object],
    ) -> None:
        self.name = name
        self.clock = clock
        self.judge = judge
        self.cooldown: Cooldown = circuit.policy.cooldown
        self.shadow = shadow
        self.rejected = 0
        self.coordinator: Coordinator | None = None
        self.moment = Moment(circuit, judges_results=judge.asks_results, shadow=shadow)
        self._event = event
        self._turn = Turn()

    def latest(self) -> Moment:
        moment = self.moment
        if moment.following:
            # Another caller has linked a moment and not stored it yet, or has stored an old one.
            while following := moment.following.get(None):
                moment = following
            self.moment = moment
        return moment

    @property
    def circuit(self) -> Circuit:
        return self.latest().circuit

    def change(self, step: Callable[[Circuit], tuple[Circuit, T]]) -> T:
        """Replace the circuit by the one that `step` returns; returns what else it returns.

        `step` may run several times. Only the last run has an effect, unless it returns the circuit
        that it got: then nothing changes.
        """
        while True:
            latest = self.latest()
            before = latest.circuit
            circuit, result = step(before)
            if circuit is before:
                return result
            moment = Moment(circuit, judges_results=self.judge.asks_results, shadow=self.shadow)
            if latest.following.setdefault(None, moment) is moment:
                self.moment = moment
                return result

    # Admit

    def acquire(self) -> Permit:
        """Admit a call or raise `CircuitOpen`. For callers that cannot wait."""
        moment = self.moment
        if moment.admits_all and not moment.following:
            return Permit(self, moment.period)
        # A traceback that somebody keeps must not keep what has followed since.
        del moment
        while True:
            permit = self._admit()
            if self.coordinator is None or permit.period.state is not HALF_OPEN:
                return permit
            answer: Grant | Denied
            try:
                answer = self.coordinator.ask()
            except Exception:
                logger.exception("ask() of a coordinator raised, the probe is denied")
                answer = Denied(0.0)
            if (granted := self._take_answer(permit, answer)) is not None:
                return granted

    async def acquire_or_wait(self) -> Permit:
        """Admit a call or raise `CircuitOpen`. It may wait for a grant of the cluster."""
        while True:
            permit = self._admit()
            if self.coordinator is None or permit.period.state is not HALF_OPEN:
                return permit
            answer: Grant | Denied
            try:
                answer = await self.coordinator.claim()
            except Exception:
                logger.exception("claim() of a coordinator raised, the probe is denied")
                answer = Denied(0.0)
            except BaseException:
                permit.ignore()
                raise
            if (granted := self._take_answer(permit, answer)) is not None:
                return granted

    def _admit(self) -> Permit:
        latest = self.latest()
        admits_all, period, until = latest.admits_all, latest.period, latest.refuses_until
        # A traceback that somebody keeps must not keep what has followed since.
        del latest
        if admits_all:
            return Permit(self, period)
        now = self.clock()
        if now < until:
            self.rejected += 1
            raise CircuitOpen(self.name, OPEN, until - now, period.last_failure)
        permit = HeldPermit(self, period, now)
        # The key stands for the permit, which must not be kept alive by the slot that it holds.
        key = permit.key

        def step(circuit: Circuit) -> tuple[Circuit, tuple[Circuit, bool]]:
            after, let_in = circuit.admit(key, now)
            return after, (after, let_in)

        circuit, let_in = self.change(step)
        permit.period = circuit.period
        if not let_in:
            permit.claim()
            return self._refuse(circuit, now)
        if circuit.period.in_flight is not None:
            circuit.period.in_flight.begin(key, now)
        self.deliver()
        return permit

    def _refuse(self, circuit: Circuit, now: float) -> Permit:
        """Raise `CircuitOpen`; in shadow mode, admit the call without counting it."""
        self.rejected += 1
        wait = circuit.wait(now)
        self.deliver()
        self.emit(Fact(Kind.CALL_REJECTED, (circuit.state, wait)))
        if self.shadow:
            return Permit(self, _NO_PERIOD)
        raise CircuitOpen(self.name, circuit.state, wait, circuit.period.last_failure)

    def _take_answer(self, probe: Permit, answer: Grant | Denied) -> Permit | None:
        """What the caller gets who asked a cluster; None to look again, because it is closed."""
        now = self.clock()
        key = probe.key
        lease_ends = 0.0
        if isinstance(answer, Grant) and isinstance(probe, HeldPermit):
            lease_ends = probe.started + answer.lease

        def step(circuit: Circuit) -> tuple[Circuit, tuple[Circuit, bool]]:
            if isinstance(answer, Denied):
                if key in circuit.trial.probes:
                    circuit = circuit.without(key)
                    if answer.retry_after > 0:
                        circuit = circuit.hold_slot(ELSEWHERE, now + answer.retry_after)
                return circuit, (circuit, False)
            void = answer.fence < circuit.epoch or now >= lease_ends
            if void or circuit.state in {CLOSED, ISOLATED}:
                circuit = circuit.without(key)
                return circuit, (circuit, False)
            if circuit.period is not probe.period:  # news of this very grant were faster
                circuit = circuit.enter(HALF_OPEN, now, "cooldown elapsed")
            circuit = circuit._replace(epoch=answer.fence).hold_slot(key, lease_ends)
            return circuit, (circuit, True)

        circuit, granted = self.change(step)
        if granted and isinstance(answer, Grant):
            probe.period = circuit.period
            probe.grant, probe.lease_ends = answer, lease_ends
            self.deliver()
            return probe
        probe.claim()
        if isinstance(answer, Grant):
            self.tell_coordinator("settled", answer, Verdict.NEUTRAL, circuit.state, 0.0)
        return None if circuit.state is CLOSED else self._refuse(circuit, now)

    def may_start(self, permit: Permit, takes: float) -> bool:
        if self.shadow:
            return True
        circuit = self.circuit
        if permit.settled or circuit.period is not permit.period:
            return False
        if permit.period.state is not HALF_OPEN:
            return True
        now = self.clock()
        if permit.grant is not None and now + takes >= permit.lease_ends:
            return False
        return circuit.trial.probes.get(permit.key, now) > now

    # Settle

    def raised(self, permit: Permit, error: BaseException) -> None:
        failed = self.judge.of_error(error)
        if failed is None:
            self.ignore(permit, error)
        else:
            self.settle(permit, error, failed=failed)

    def returned(self, permit: Permit, result: object) -> None:
        failed = self.judge.of_result(result)
        if failed is None:
            self.ignore(permit, None)
        else:
            self.settle(permit, None, failed=failed)

    def settle(self, permit: Permit, error: BaseException | None, *, failed: bool) -> bool:
        if not failed and self.latest().steady is permit.period:
            if not permit.claim():
                return False
            self.emit(Fact(Kind.CALL_SUCCEEDED))
            return True
        # The slot of a probe, which it has once, says whether it was settled before. So a probe
        # whose verdict is interrupted keeps its slot until it is forgotten.
        if permit.settled if permit.period.state is HALF_OPEN else not permit.claim():
            return False
        now = self.clock()
        if self._count(permit.period, now, failed=failed):
            if failed:
                self.tell_coordinator("failed")
            return True
        if permit.grant is not None and now >= permit.lease_ends:
            self.ignore(permit, error)
            return False
        key, period, duration = permit.key, permit.period, permit.duration(now)
        if period.in_flight is not None:
            period.in_flight.end(key)
        cause = Cause(self.cooldown, error)

        def step(circuit: Circuit) -> tuple[Circuit, tuple[bool, Circuit, Circuit]]:
            after, counts = circuit.settle(period, key, now, duration, cause, failed=failed)
            return after, (counts, circuit, after)

        counts, before, after = self.change(step)
        permit.claim()
        self.deliver()
        if self.coordinator is not None:
            self._report(permit, before, after, failed=failed, counts=counts)
        return counts

    def _count(self, period: Period, now: float, *, failed: bool) -> bool:
        """Whether that is all: the outcome was counted, and changed nothing else."""
        while True:
            latest = self.latest()
            if (latest.counts_failure if failed else latest.counts_success) is not period:
                return False
            moment = latest.counted(now, failed=failed)
            if moment is None:
                return False
            if latest.following.setdefault(None, moment) is moment:
                self.moment = moment
                return True

    def ignore(self, permit: Permit, error: BaseException | None) -> bool:
        if permit.settled or not (permit.period.state is HALF_OPEN or permit.claim()):
            return False
        key, period = permit.key, permit.period
        now = 0.0 if key is None else self.clock()
        if period.in_flight is not None:
            period.in_flight.end(key)
        counts = self.change(lambda circuit: circuit.ignore(period, key, now, error))
        permit.claim()
        self.deliver()
        self._give_grant_back(permit)
        return counts

    def abandon(self, permit: Permit) -> None:
        """Like `ignore`, but tells no listener: a finalizer may run in the middle of anything."""
        key, period = permit.key, permit.period
        if period.in_flight is not None:
            period.in_flight.end(key)
        self.change(lambda circuit: (circuit.without(key), None))
        self._give_grant_back(permit)

    # Tell

    def emit(self, fact: Fact) -> None:
        """Emit an event that changes no state; at once if no other events wait."""
        circuit = self.circuit
        if fact.kind in circuit.listeners:
            told = False
            if not circuit.waiting:
                for _ in self._turn.take():
                    told = True
                    self._tell(fact)
            if not told:
                self.change(lambda circuit: (circuit.tell(fact), None))
        self.deliver()

    def deliver(self) -> None:
        """Deliver waiting events to the listeners, unless another caller is doing that.

        Checks again afterwards, for events that arrived during the delivery.
        """
        spent = 0.0
        while self.circuit.waiting and spent < _MOST_SPENT:
            mine = False
            for _ in self._turn.take():
                mine = True
                while (waiting := self.circuit.waiting) and spent < _MOST_SPENT:
                    started = time.perf_counter()
                    self._tell(waiting[0])
                    self._drop(waiting[0])
                    took = time.perf_counter() - started
                    spent += took if took > _SLOW else 0.0
            if not mine:
                return

    def _drop(self, fact: Fact) -> None:
        self.change(lambda circuit: (circuit.told(fact), None))

    def _tell(self, fact: Fact) -> None:
        event = self._event(fact.kind, fact.fields)
        for hear in self.circuit.listeners.get(fact.kind, ()):
            try:
                hear(fact.ticket, event)
            except Exception:
                logger.exception("a listener of %s raised", type(event).__name__)

    # Tell the cluster

    def _report(
        self, permit: Permit, before: Circuit, after: Circuit, *, failed: bool, counts: bool
    ) -> None:
        if permit.grant is not None:
            verdict = Verdict.FAILURE if failed else Verdict.SUCCESS
            self._settle_grant(permit, verdict if counts else Verdict.NEUTRAL, after)
        elif counts and failed and before.state is CLOSED:
            self.tell_coordinator("failed")
            if after.state is OPEN:
                self.tell_coordinator("tripped", after.wait(self.clock()))

    def _give_grant_back(self, permit: Permit) -> None:
        if permit.grant is not None:
            self._settle_grant(permit, Verdict.NEUTRAL, self.circuit)

    def _settle_grant(self, permit: Permit, verdict: Verdict, circuit: Circuit) -> None:
        grant, permit.grant = permit.grant, None
        self.tell_coordinator("settled", grant, verdict, circuit.state, self._open_for(circuit))

    def steered(self) -> None:
        if self.coordinator is not None:
            circuit = self.circuit
            self.tell_coordinator("steered", circuit.state, self._open_for(circuit))

    def _open_for(self, circuit: Circuit) -> float:
        return circuit.wait(self.clock()) if circuit.state is OPEN else 0.0

    def tell_coordinator(self, method: str, *arguments: object) -> None:
        if self.coordinator is None:
            return
        try:
            getattr(self.coordinator, method)(*arguments)
        except Exception:
            logger.exception("%s() of a coordinator raised", method)

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, Any

from halfopen.errors import CircuitOpen, stand_in
from halfopen.events import (
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    Event,
    ProbeExpired,
    StateChanged,
)
from halfopen.listeners import E, Listeners
from halfopen.permit import Isolation, Permit, Probe
from halfopen.recovery import Backoff
from halfopen.rules import Rule, SlowCallRate
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, OPEN, Snapshot, State
from halfopen.verdicts import FAILURE, NEUTRAL, SUCCESS, Judge, Verdict

if TYPE_CHECKING:
    from halfopen.breaker import CircuitBreaker

_hears_successes = attrgetter("hears_successes")
_MANY = 1 << 20  # beyond it, doubling means nothing but an ever longer integer


class Circuit:
    """The state machine. A call is admitted, then settled, and either may change the state.

    Every entry into a state begins a generation. A permit carries the one that it was given in, and
    a verdict of another one counts nowhere.

    Threads: whatever decides runs under one lock; the clock, predicates and listeners never do.
    Calls look at `closed` and `calm` without it: who sees an old value has an old generation.
    """

    def __init__(
        self,
        breaker: CircuitBreaker,
        rules: tuple[Rule, ...],
        cooldown: Backoff,
        success_threshold: int,
        probe_timeout: float | None,
        judge: Judge,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.name = breaker.name
        self._breaker = breaker
        self._rules = rules
        self._cooldown = cooldown
        self._success_threshold = success_threshold
        self._probe_timeout = probe_timeout
        self._judge = judge
        self.clock = clock
        self._random = random
        self._slow = min(
            (rule.slower_than for rule in rules if isinstance(rule, SlowCallRate)), default=None
        )
        self._lock = Lock()
        self._listeners = Listeners()
        self._failed = self.rejected = self._opened = 0
        self._isolations: set[Isolation] = set()
        self._probes: dict[int, float] = {}  # the number of a probe: when it loses its slot
        self._numbered = 0
        self.given_back: deque[int] = deque()  # numbers of probes that ended without a verdict
        self.last_failure: BaseException | None = None
        self._chance: float | None = None
        self._retry_at = 0.0
        self._next_cooldown = self._probe_limit = cooldown.initial
        self._counters = [rule.start() for rule in rules]
        self._allowed = 1
        self._successes = 0
        self.state = CLOSED
        self._since = clock()
        self.generation = 1
        self._look_for_calm()

    def admit(self) -> Permit:
        """Raises `CircuitOpen` if no call may be made."""
        generation = self.closed
        if generation:
            return Permit(self, generation, self.clock() if self._slow else 0.0)
        now = self.clock()
        with self._lock:
            permit = self._try_to_admit(now)
            if permit is None:
                self.rejected += 1
                wait = self._retry_after(now)
                refusal = CircuitOpen(self.name, self.state, wait, self.last_failure)
                self._say(CallRejected, self.state, wait)
        self._listeners.deliver()
        if permit is None:
            try:
                raise refusal
            finally:
                # Its traceback holds this frame; held in turn, both would wait for the collector.
                del refusal
        return permit

    def raised(self, permit: Permit, exc: BaseException) -> None:
        self.settle(permit, self._judge.of_error(exc), exc)

    def returned(self, permit: Permit, result: object) -> None:
        self.settle(permit, self._judge.of_result(result))

    def settle(self, permit: Permit, verdict: Verdict, error: BaseException | None = None) -> bool:
        if verdict is NEUTRAL:
            return self._ignore(permit, error)
        if verdict is SUCCESS and self.calm == permit.generation:
            first = not permit.settled
            permit.settled = True
            return first
        failed = verdict is FAILURE
        now = self.clock()
        self._draw()
        with self._lock:
            first = not permit.settled
            permit.settled = True
            counts = first and self._is_current(permit, now)
            if first and not counts:
                self._say(CallIgnored, error)
            elif counts and failed:
                self._failed += 1
                self._say(CallFailed, error)
            elif counts:
                self._say(CallSucceeded)
            openings = self._opened
            if counts:
                self._count(permit, now, failed=failed)
            opened = self._opened != openings
        if opened and error is not None:
            self._keep(error, openings + 1)
        self._listeners.deliver()
        return counts

    def _keep(self, error: BaseException, opening: int) -> None:
        kept = stand_in(error)  # runs code of the exception, so not under the lock
        with self._lock:
            if self._opened == opening:
                self.last_failure = kept

    def _ignore(self, permit: Permit, error: BaseException | None) -> bool:
        # A forgotten generator is closed by garbage collection, maybe while this very thread holds
        # the lock. So this never waits for it, and leaves the event to whoever holds it.
        if permit.settled:
            return False
        permit.settled = True
        current = permit.generation == self.generation
        if isinstance(permit, Probe):
            current = permit.number in self._probes
            self.given_back.append(permit.number)
        self._say(CallIgnored, error)
        if not self._lock.locked():
            self._listeners.deliver()
        return current

    def _draw(self) -> None:
        # One number for each opening, kept until it is used.
        if self._cooldown.jitter and self._chance is None:
            self._chance = self._random()

    def trip(self, lasting: float | None) -> None:
        self._draw()
        with self._locked() as now:
            if self.state is not ISOLATED:
                self._open("tripped by hand", now, lasting)

    def isolate(self, handle: Isolation) -> None:
        with self._locked() as now:
            self._isolations.add(handle)
            if self.state is not ISOLATED:
                self._enter(ISOLATED, now, "isolated by hand")

    def release(self, handle: Isolation) -> None:
        with self._locked() as now:
            if handle in self._isolations:
                self._isolations.remove(handle)
                if not self._isolations:
                    self._enter(CLOSED, now, "released by hand")

    def reset(self) -> None:
        with self._locked() as now:
            self._isolations.clear()
            self._enter(CLOSED, now, "reset by hand")

    @contextmanager
    def _locked(self) -> Iterator[float]:
        now = self.clock()
        with self._lock:
            yield now
        self._listeners.deliver()

    def snapshot(self) -> Snapshot:
        with self._locked() as now:
            self._take_back()
            deadlines = [at for at in self._probes.values() if at > now]
            if self.state is CLOSED or (self.state is HALF_OPEN and len(deadlines) < self._allowed):
                retry_after = 0.0
            else:
                retry_after = max(self._retry_after(now), 0.0)
            return Snapshot(
                name=self.name,
                state=self.state,
                in_state_for=now - self._since,
                retry_after=retry_after,
                next_cooldown=self._next_cooldown,
                rules=tuple(counter.reading(now) for counter in self._counters),
                probes=len(deadlines),
                probes_allowed=self._allowed,
                successes=self._successes,
                success_threshold=self._success_threshold,
                failed=self._failed,
                rejected=self.rejected,
                opened=self._opened,
                last_failure=self.last_failure,
            )

    def listen(
        self, event: type[E], listener: Callable[[E], object], *, once: bool
    ) -> Callable[[], None]:
        remove = self._listeners.add(event, listener, once=once)

        def unsubscribe() -> None:
            remove()
            with self._locked():
                self._look_for_calm()

        with self._locked():
            self._look_for_calm()
        return unsubscribe

    # The rest runs under the lock

    def _try_to_admit(self, now: float) -> Permit | None:
        if self.state is OPEN and now >= self._retry_at:
            self._enter(HALF_OPEN, now, "cooldown elapsed")
        if self.state is CLOSED:  # since it was looked at
            return Permit(self, self.generation, now)
        if self.state is not HALF_OPEN:
            return None
        self._take_back()
        # All had the same time, so the first to come is the first to lose its slot.
        while self._probes and next(iter(self._probes.values())) <= now:
            self._expire(next(iter(self._probes)))
        if len(self._probes) >= self._allowed:
            return None
        self._numbered += 1
        self._probes[self._numbered] = now + self._probe_limit
        return Probe(self, self.generation, now, self._numbered)

    def _is_current(self, permit: Permit, now: float) -> bool:
        if permit.generation != self.generation:
            return False
        if not isinstance(permit, Probe):
            return True
        if permit.number in self._probes and self._probes[permit.number] <= now:
            self._expire(permit.number)
        return self._probes.pop(permit.number, None) is not None

    def _expire(self, number: int) -> None:
        del self._probes[number]
        self._say(ProbeExpired)

    def _count(self, permit: Permit, now: float, *, failed: bool) -> None:
        duration = now - permit.started
        if not isinstance(permit, Probe):
            # Every rule hears of every call, even if an earlier one trips.
            tripped = [c for c in self._counters if c.trips(now, duration, failed=failed)]
            if tripped:
                self._open(str(tripped[0].rule), now)
            else:
                self._look_for_calm()
        elif failed:
            self._open("a probe failed", now)
        elif self._slow is not None and duration > self._slow:
            self._open("a probe was slow", now)
        else:
            self._successes += 1
            self._allowed = min(self._allowed * 2, _MANY)
            if self._successes == self._success_threshold:
                self._enter(CLOSED, now, "recovered")

    def _open(self, reason: str, now: float, lasting: float | None = None) -> None:
        self._probe_limit = self._probe_timeout or self._next_cooldown
        if lasting is None:
            lasting = self._cooldown.jittered(self._next_cooldown, self._chance or 0.0)
            self._next_cooldown = self._cooldown.after(self._next_cooldown)
            self._chance = None
        self._retry_at = now + lasting
        self._opened += 1
        self.last_failure = None
        self._enter(OPEN, now, reason)

    def _enter(self, state: State, now: float, reason: str) -> None:
        old, self.state = self.state, state
        self.generation += 1
        self._probes.clear()
        self.given_back.clear()
        self._allowed = 1
        self._successes = 0
        if state is CLOSED:
            self._counters = [rule.start() for rule in self._rules]
            self._next_cooldown = self._cooldown.initial
            self.last_failure = None
        self._look_for_calm()
        if state is not old:
            self._since = now
            self._say(StateChanged, old, state, reason)

    def _look_for_calm(self) -> None:
        """Set what calls look at without the lock; 0 stands for no."""
        self.closed = self.generation if self.state is CLOSED else 0
        eventful = (
            self._slow
            or self._judge.hears_results
            or CallSucceeded in self._listeners
            or any(map(_hears_successes, self._counters))
        )
        self.calm = 0 if eventful else self.closed
        quiet = self.state is OPEN and CallRejected not in self._listeners
        self.refused_until = self._retry_at if quiet else 0.0

    def _take_back(self) -> None:
        while self.given_back:
            self._probes.pop(self.given_back.popleft(), None)

    def _retry_after(self, now: float) -> float:
        """How long a call has to wait that is refused now."""
        if self.state is OPEN:
            return self._retry_at - now
        if self.state is ISOLATED:
            return self._next_cooldown
        return next(iter(self._probes.values())) - now

    def _say(self, event: type[Event], *fields: Any) -> None:
        if event in self._listeners:
            self._listeners.queue(event(self._breaker, *fields))

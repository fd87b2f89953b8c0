from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from halfopen.errors import CircuitOpen, stand_in
from halfopen.events import (
    CallFailed,
    CallIgnored,
    CallRejected,
    CallSucceeded,
    ProbeExpired,
    StateChanged,
)
from halfopen.judge import Outcome
from halfopen.listeners import E, Listeners
from halfopen.permit import Permit, Probe
from halfopen.recovery import Backoff
from halfopen.rules import Rule, SlowCallRate
from halfopen.snapshot import Snapshot
from halfopen.state import State

if TYPE_CHECKING:
    from halfopen.breaker import CircuitBreaker

_MANY = 1 << 20


class Circuit:
    """The state machine: calls are admitted, then settled; both may enter another state.

    Every entry into a state has a number of its own, the generation. A permit remembers the one it
    was given in, and a verdict of another generation counts nowhere.

    Threads: everything that decides happens under one lock. The clock, the source of chance,
    predicates and listeners run outside it. `closed` and `calm` are read without it, once a call:
    whoever reads them too late holds a permit of an old generation, which is harmless.
    """

    __slots__ = (
        "_allowed",
        "_breaker",
        "_chance",
        "_clock",
        "_cooldown",
        "_counters",
        "_failed",
        "_given_back",
        "_isolations",
        "_last_failure",
        "_lock",
        "_next_cooldown",
        "_opened",
        "_probe_limit",
        "_probe_timeout",
        "_probes",
        "_random",
        "_reads_results",
        "_rejected",
        "_retry_at",
        "_rules",
        "_since",
        "_slow",
        "_success_threshold",
        "_successes",
        "_total_probes",
        "calm",
        "closed",
        "generation",
        "listeners",
        "state",
    )

    def __init__(
        self,
        breaker: CircuitBreaker,
        *,
        rules: tuple[Rule, ...],
        cooldown: Backoff,
        success_threshold: int,
        probe_timeout: float | None,
        reads_results: bool,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._breaker = breaker
        self._rules = rules
        self._cooldown = cooldown
        self._success_threshold = success_threshold
        self._probe_timeout = probe_timeout
        self._reads_results = reads_results
        self._clock = clock
        self._random = random
        self._lock = Lock()
        self.listeners = Listeners()
        self._slow = min(
            (rule.slower_than for rule in rules if isinstance(rule, SlowCallRate)), default=None
        )
        self._chance: float | None = None
        self._failed = self._rejected = self._opened = self._total_probes = 0
        self._isolations: set[object] = set()
        self._probes: dict[int, float] = {}  # number of a probe in flight: when it loses its slot
        self._given_back: deque[int] = deque()
        self._last_failure: BaseException | None = None
        self._retry_at = 0.0
        self._next_cooldown = self._probe_limit = cooldown.initial
        self._allowed = 1
        self._successes = 0
        self.generation = 0
        self.state = State.CLOSED
        self._since = clock()
        self._enter(State.CLOSED, self._since, "")

    # -- calls

    def admit(self) -> Permit:
        """Raises `CircuitOpen` if the call must not be made now."""
        generation = self.closed
        if generation:
            return Permit(self, generation, self._clock() if self._slow else 0.0)
        now = self._clock()
        with self._lock:
            permit = self._admit(now)
            if permit is None:
                retry_after = self._retry_after(now)
                state = self.state
                last_failure = self._last_failure
                self._rejected += 1
                if self.listeners.wants(CallRejected):
                    self.listeners.queue(CallRejected(self._breaker, state, retry_after))
        self.listeners.deliver()
        if permit is None:
            raise CircuitOpen(self._breaker.name, state, retry_after, last_failure)
        return permit

    def settle(self, permit: Permit, outcome: Outcome, error: BaseException | None) -> bool:
        """Take the verdict on a call; did it count?"""
        if outcome is Outcome.NEUTRAL:
            return self._ignore(permit, error)
        if outcome is Outcome.SUCCESS and self.calm == permit.generation:
            first = not permit.settled
            permit.settled = True
            return first
        now = self._clock()
        failed = outcome is Outcome.FAILURE
        kept = stand_in(error) if error is not None and failed else None
        chance = self._draw()
        with self._lock:
            if permit.settled:
                return False
            permit.settled = True
            counts = self._is_current(permit, now)
            self._announce(counts, failed, error)
            if counts:
                count = self._count_probe if isinstance(permit, Probe) else self._count_call
                count(failed, now, now - permit.started, chance, kept)
        self.listeners.deliver()
        return counts

    def give_back(self, probe: Probe) -> None:
        """Free the slot of a probe without a verdict. Takes no lock: finalizers end up here."""
        self._given_back.append(probe.number)

    def _ignore(self, permit: Permit, error: BaseException | None) -> bool:
        # Garbage collection closes forgotten generators, which lands here, possibly while this very
        # thread holds the lock. So nothing here waits for it; and while somebody holds it, whoever
        # does delivers the event afterwards.
        if permit.settled:
            return False
        permit.settled = True
        if isinstance(permit, Probe):
            self.give_back(permit)
        if self.listeners.wants(CallIgnored):
            self.listeners.queue(CallIgnored(self._breaker, error))
            if not self._lock.locked():
                self.listeners.deliver()
        return permit.generation == self.generation

    # -- by hand

    def trip(self, lasting: float | None) -> None:
        now = self._clock()
        chance = self._draw()
        with self._lock:
            if self.state is not State.ISOLATED:
                self._last_failure = None
                self._open("tripped by hand", now, chance, lasting)
        self.listeners.deliver()

    def isolate(self, handle: object) -> None:
        now = self._clock()
        with self._lock:
            self._isolations.add(handle)
            if self.state is not State.ISOLATED:
                self._enter(State.ISOLATED, now, "isolated by hand")
        self.listeners.deliver()

    def release(self, handle: object) -> None:
        now = self._clock()
        with self._lock:
            held = handle in self._isolations
            self._isolations.discard(handle)
            if held and not self._isolations:
                self._enter(State.CLOSED, now, "released by hand")
        self.listeners.deliver()

    def reset(self) -> None:
        now = self._clock()
        with self._lock:
            self._isolations.clear()
            self._last_failure = None
            self._enter(State.CLOSED, now, "reset by hand")
        self.listeners.deliver()

    # -- reading

    def snapshot(self) -> Snapshot:
        now = self._clock()
        with self._lock:
            return Snapshot(
                name=self._breaker.name,
                state=self.state,
                in_state_for=now - self._since,
                retry_after=self._retry_after(now),
                next_cooldown=self._next_cooldown,
                rules=tuple(counter.reading(now) for counter in self._counters),
                probes=len(self._live_probes(now)),
                probes_allowed=self._allowed,
                successes=self._successes,
                success_threshold=self._success_threshold,
                failed=self._failed,
                rejected=self._rejected,
                opened=self._opened,
                last_failure=self._last_failure,
            )

    def _refresh(self) -> None:
        """Work out `calm` again: the generation while a success has nothing to tell, else 0."""
        talks = (
            self._slow
            or self._reads_results
            or self.listeners.wants(CallSucceeded)
            or any(counter.hears_success for counter in self._counters)
        )
        self.calm = 0 if talks else self.closed

    def listen(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        remove = self.listeners.add(event, listener)
        with self._lock:
            self._refresh()

        def unsubscribe() -> None:
            remove()
            with self._lock:
                self._refresh()

        return unsubscribe

    def _draw(self) -> float:
        """One number for each opening, drawn before the lock is taken and kept until used."""
        if self._cooldown.jitter and self._chance is None:
            self._chance = self._random()
        return self._chance or 0.0

    # -- what follows runs under the lock

    def _announce(self, counts: bool, failed: bool, error: BaseException | None) -> None:
        listeners = self.listeners
        if not counts:
            if listeners.wants(CallIgnored):
                listeners.queue(CallIgnored(self._breaker, error))
        elif failed:
            self._failed += 1
            if listeners.wants(CallFailed):
                listeners.queue(CallFailed(self._breaker, error))
        elif listeners.wants(CallSucceeded):
            listeners.queue(CallSucceeded(self._breaker))

    def _admit(self, now: float) -> Permit | None:
        if self.state is State.OPEN and now >= self._retry_at:
            self._enter(State.HALF_OPEN, now, "cooldown elapsed")
        if self.state is State.HALF_OPEN:
            return self._admit_probe(now)
        if self.state is State.CLOSED:  # it closed since `closed` was read
            return Permit(self, self.generation, now)
        return None

    def _admit_probe(self, now: float) -> Permit | None:
        while self._given_back:
            self._probes.pop(self._given_back.popleft(), None)
        # All wait equally long, so the oldest is the first to expire.
        while self._probes and next(iter(self._probes.values())) <= now:
            self._expire(next(iter(self._probes)))
        if len(self._probes) >= self._allowed:
            return None
        self._total_probes += 1
        self._probes[self._total_probes] = now + self._probe_limit
        return Probe(self, self.generation, now, self._total_probes)

    def _expire(self, number: int) -> None:
        del self._probes[number]
        if self.listeners.wants(ProbeExpired):
            self.listeners.queue(ProbeExpired(self._breaker))

    def _is_current(self, permit: Permit, now: float) -> bool:
        if permit.generation != self.generation:
            return False
        if isinstance(permit, Probe):
            loses_slot_at = self._probes.get(permit.number)
            if loses_slot_at is None:
                return False
            if loses_slot_at <= now:
                self._expire(permit.number)
                return False
            del self._probes[permit.number]
        return True

    def _count_call(
        self,
        failed: bool,
        now: float,
        duration: float,
        chance: float,
        error: BaseException | None,
    ) -> None:
        # Every rule hears of every call, also of the one that trips another rule.
        tripped = [
            rule
            for rule, counter in zip(self._rules, self._counters, strict=True)
            if counter.record(now, duration, failed=failed)
        ]
        if tripped:
            self._last_failure = error
            self._open(repr(tripped[0]), now, chance)
        else:
            self._refresh()

    def _count_probe(
        self,
        failed: bool,
        now: float,
        duration: float,
        chance: float,
        error: BaseException | None,
    ) -> None:
        slow = self._slow is not None and duration > self._slow
        if failed or slow:
            self._last_failure = error
            self._open("a probe failed" if failed else "a probe was slow", now, chance)
            return
        self._successes += 1
        if self._successes == self._success_threshold:
            self._enter(State.CLOSED, now, "recovered")
        else:
            self._allowed = min(self._allowed * 2, _MANY)

    def _open(self, reason: str, now: float, chance: float, lasting: float | None = None) -> None:
        self._probe_limit = self._probe_timeout or self._next_cooldown
        if lasting is None:
            lasting = self._cooldown.jittered(self._next_cooldown, chance)
            self._next_cooldown = self._cooldown.after(self._next_cooldown)
            self._chance = None
        self._retry_at = now + lasting
        self._opened += 1
        self._enter(State.OPEN, now, reason)

    def _enter(self, state: State, now: float, reason: str) -> None:
        old, self.state = self.state, state
        self.generation += 1
        self.closed = self.generation if state is State.CLOSED else 0
        self._probes.clear()
        self._given_back.clear()
        self._allowed = 1
        self._successes = 0
        if state is State.CLOSED:
            self._counters = [rule.start() for rule in self._rules]
            self._next_cooldown = self._cooldown.initial
        self._refresh()
        if state is not old:
            self._since = now
            if self.listeners.wants(StateChanged):
                self.listeners.queue(StateChanged(self._breaker, old, state, reason))

    def _live_probes(self, now: float) -> list[float]:
        """When each probe that still holds its slot will lose it."""
        gone = set(self._given_back)
        return [at for number, at in self._probes.items() if at > now and number not in gone]

    def _retry_after(self, now: float) -> float:
        if self.state is State.OPEN:
            return max(self._retry_at - now, 0.0)
        if self.state is State.ISOLATED:
            return self._next_cooldown
        live = self._live_probes(now)
        if self.state is State.CLOSED or len(live) < self._allowed:
            return 0.0
        return min(live) - now

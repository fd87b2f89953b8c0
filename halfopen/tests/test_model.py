"""The breaker against a naive model, written from the rules with no thought of speed."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from halfopen import (
    Backoff,
    CallWindow,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    ProbeExpired,
    SlowCallRate,
    State,
    StateChanged,
    TimeWindow,
)

WINDOW, COOLDOWN, PROBE_TIMEOUT = 8, 4, 3


class Model:
    """Remembers everything since the circuit was closed and works all out of it each time."""

    def __init__(self, trip, backoff, success_threshold, success_share):
        self.trip = trip
        self.backoff = backoff
        self.success_threshold = success_threshold
        self.success_share = success_share
        self.expired = 0
        self.now = 0
        self.isolations = set()
        self.changes = []
        self.state = State.CLOSED
        self.close()

    def close(self):
        self.go(State.CLOSED)
        self.calls = []  # (end, duration, failed)
        self.openings = 0

    def go(self, state):
        if state is not self.state:
            self.changes.append((self.state, state))
        self.state = state
        self.epoch = object()
        self.probes = {}  # permit: when it was let in
        self.overdue = set()
        self.in_flight = {}  # calls while closed: when they began
        self.probe_successes = 0
        self.probe_failures = 0

    def open(self, lasting=None):
        if self.state is State.OPEN:  # the same opening begins again
            self.openings = max(self.openings - 1, 0) if lasting is None else self.openings
        if lasting is None:
            lasting = self.cooldown()
            self.openings += 1
        self.open_until = self.now + lasting
        self.go(State.OPEN)

    def isolate(self):
        if self.state is State.ISOLATED:
            return
        self.was_open = self.state is not State.CLOSED
        if self.state is State.HALF_OPEN:
            self.open_until = self.now
        self.go(State.ISOLATED)

    def release(self):
        if self.was_open:
            self.go(State.OPEN)
        else:
            self.close()

    def cooldown(self):
        return min(COOLDOWN * 2**self.openings, 16) if self.backoff else COOLDOWN

    def needed(self):
        shares = [n / self.success_threshold for n in range(1, self.success_threshold + 1)]
        return 1 + [share >= self.success_share for share in shares].index(True)

    def may_be_in_flight(self):
        return min(2**self.probe_successes, self.needed() - self.probe_successes)

    def expire(self):
        late = {p for p, since in self.probes.items() if self.now >= since + PROBE_TIMEOUT}
        self.overdue |= late
        for probe in late:
            del self.probes[probe]
            self.expired += 1

    def admit(self, permit):
        """How long the caller must wait; 0 if it is let in."""
        if self.state is State.ISOLATED:
            return self.cooldown()
        if self.state is State.OPEN:
            if self.now < self.open_until:
                return self.open_until - self.now
            self.go(State.HALF_OPEN)
        if self.state is State.HALF_OPEN:
            self.expire()
            if len(self.probes) >= self.may_be_in_flight():
                return min(self.probes.values()) + PROBE_TIMEOUT - self.now
            self.probes[permit] = self.now
        elif any(self.hung(rule) and self.trips(rule, failed=False) for rule in self.trip):
            self.open()
            return self.open_until - self.now
        else:
            self.in_flight[permit] = self.now
        return 0

    def hung(self, rule):
        """Calls that have run for too long and not ended: slow ones, the latest of all."""
        if not isinstance(rule, SlowCallRate):
            return []
        slow = [began for began in self.in_flight.values() if self.now - began > rule.slower_than]
        return [(self.now, rule.slower_than + 1, False)] * len(slow)

    def settle(self, permit, epoch, began, verdict):
        if epoch is not self.epoch:
            return False
        self.in_flight.pop(permit, None)
        if self.state is State.HALF_OPEN:
            self.expire()
            had_a_slot = self.probes.pop(permit, None) is not None
            if verdict == "ignore":
                self.overdue.discard(permit)
                return had_a_slot
            if not had_a_slot and permit not in self.overdue:
                return False
            self.overdue.discard(permit)
            slow = any(
                isinstance(rule, SlowCallRate) and self.now - began > rule.slower_than
                for rule in self.trip
            )
            if verdict == "failure" or slow:
                self.probe_failures += 1
                if self.probe_failures > self.success_threshold - self.needed():
                    self.open()
            else:
                self.probe_successes += 1
                if self.probe_successes == self.needed():
                    self.close()
        elif verdict != "ignore":
            self.calls.append((self.now, self.now - began, verdict == "failure"))
            if any(self.trips(rule, verdict == "failure") for rule in self.trip):
                self.open()
        return True

    def trips(self, rule, failed):
        if isinstance(rule, ConsecutiveFailures):
            last = self.calls[-rule.n :]
            return len(last) == rule.n and all(failed for _, _, failed in last)
        if isinstance(rule, FailureCount):
            recent = [end for end, _, bad in self.calls if bad and self.now - end <= rule.within]
            return failed and len(recent) >= rule.n
        heard = self.calls + self.hung(rule)
        if isinstance(rule.over, CallWindow):
            calls = heard[-rule.over.n :]
        else:
            calls = [call for call in heard if self.now - call[0] <= rule.over.seconds]
        if isinstance(rule, SlowCallRate):
            bad = sum(duration > rule.slower_than for _, duration, _ in calls)
        else:
            bad = sum(failed for _, _, failed in calls)
        return len(calls) >= rule.minimum_calls and bad / len(calls) >= rule.rate


class Breaker(RuleBasedStateMachine):
    permits = Bundle("permits")
    handles = Bundle("handles")

    @initialize(
        trip=st.lists(
            st.sampled_from(
                [
                    ConsecutiveFailures(3),
                    FailureCount(3, within=WINDOW),
                    FailureRate(0.5, over=CallWindow(5), minimum_calls=4),
                    FailureRate(0.5, over=TimeWindow(WINDOW), minimum_calls=4),
                    SlowCallRate(0.6, slower_than=1, over=CallWindow(4), minimum_calls=3),
                    SlowCallRate(0.6, slower_than=1, over=TimeWindow(WINDOW), minimum_calls=3),
                ]
            ),
            min_size=1,
            max_size=3,
        ).map(tuple),
        backoff=st.booleans(),
        success_threshold=st.integers(1, 6),
        success_share=st.sampled_from([1.0, 1.0, 0.5, 0.7]),
    )
    def begin(self, trip, backoff, success_threshold, success_share):
        self.model = Model(trip, backoff, success_threshold, success_share)
        self.breaker = CircuitBreaker(
            "x",
            trip=trip,
            cooldown=Backoff(COOLDOWN, maximum=16) if backoff else COOLDOWN,
            success_threshold=success_threshold,
            success_share=success_share,
            probe_timeout=PROBE_TIMEOUT,
            clock=lambda: self.model.now,
        )
        self.changes = []
        self.breaker.on(StateChanged, lambda change: self.changes.append((change.old, change.new)))
        self.expired = []
        self.breaker.on(ProbeExpired, self.expired.append)

    @rule(seconds=st.sampled_from([1, 1, 2, 3, 4, 8, 9, 1000]))
    def wait(self, seconds):
        self.model.now += seconds

    @rule(target=permits)
    def acquire(self):
        key = object()
        wait = self.model.admit(key)
        if wait:
            with pytest.raises(CircuitOpen) as refused:
                self.breaker.acquire()
            assert refused.value.retry_after == wait
            assert refused.value.state is self.model.state
            return None
        return self.breaker.acquire(), key, self.model.epoch, self.model.now

    @rule(drawn=permits, verdict=st.sampled_from(["success", "failure", "failure", "ignore"]))
    def settle(self, drawn, verdict):
        if drawn is None:
            return
        permit, *known = drawn
        expected = not permit.settled and self.model.settle(*known, verdict)
        assert getattr(permit, verdict)() is expected

    @rule(outcomes=st.lists(st.booleans(), min_size=1, max_size=6))
    def call(self, outcomes):
        for failed in outcomes:
            key = object()
            wait = self.model.admit(key)
            if wait:
                with pytest.raises(CircuitOpen):
                    self.breaker.call(int)
            elif failed:
                with pytest.raises(ValueError, match="nonsense"):
                    self.breaker.call(int, "nonsense")
                self.model.settle(key, self.model.epoch, self.model.now, "failure")
            else:
                assert self.breaker.call(int) == 0
                self.model.settle(key, self.model.epoch, self.model.now, "success")

    @rule(for_=st.sampled_from([None, 2]))
    def trip(self, for_):
        self.breaker.trip(for_)
        if self.model.state is not State.ISOLATED:
            self.model.open(for_)

    @rule(target=handles)
    def isolate(self):
        handle = self.breaker.isolate()
        self.model.isolations.add(handle)
        self.model.isolate()
        return handle

    @rule(handle=handles)
    def release(self, handle):
        handle.release()
        if handle in self.model.isolations:
            self.model.isolations.remove(handle)
            if not self.model.isolations:
                self.model.release()

    @rule()
    def reset(self):
        self.breaker.reset()
        self.model.isolations.clear()
        self.model.close()

    @invariant()
    def agrees(self):
        if not hasattr(self, "model"):
            return
        assert self.breaker.state is self.model.state
        assert self.changes == self.model.changes
        assert len(self.expired) == self.model.expired
        snapshot = self.breaker.snapshot()
        assert snapshot.next_cooldown == self.model.cooldown()
        live = [at for at in self.model.probes.values() if self.model.now < at + PROBE_TIMEOUT]
        assert snapshot.probes == len(live)
        assert snapshot.retry_after >= 0


Breaker.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreakerAgainstItsModel = Breaker.TestCase

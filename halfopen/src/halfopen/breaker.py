from __future__ import annotations

import inspect
import random as chance
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from halfopen import calls, checks, events
from halfopen.calls import Guard, Isolation, Permit, Probe
from halfopen.cluster import Coordinator, Denied, Grant, Verdict
from halfopen.events import Event, Listeners, logger
from halfopen.rules import Backoff, Cooldowns, FailureCount, Rule, SlowCallRate, start
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, OPEN, CircuitOpen, Snapshot, State, stand_in

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=Event)
Predicate: TypeAlias = Callable[[Any], object]
ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]

_DEFAULT_RULE = FailureCount(5, within=60.0)
_DOUBLINGS = 20  # beyond, they mean nothing but an ever longer integer


class CircuitBreaker:
    """Stops calling what keeps failing, and tries with single probes whether it works again.

    Safe to use from any number of threads and tasks, also without a GIL. It holds no lock while
    code that is not its own runs. A caller sees the exceptions of what it called unchanged; what
    ends in another state than it began in counts nowhere.
    """

    # A call is admitted, then settled, and either may change the state. Every closed period and
    # every probe has a number of its own; a permit bears it, and counts nowhere once it is gone.
    # Whatever decides runs under one lock; the clock, predicates and listeners never do. Calls
    # look at `_closed` and `_calm` without it: who sees an old value has an old number.

    def __init__(
        self,
        name: str,
        *,
        trip: Rule | tuple[Rule, ...] = _DEFAULT_RULE,
        cooldown: float | Backoff = 10.0,
        success_threshold: int = 1,
        probe_timeout: float | None = None,
        failure_on: ErrorTypes | Callable[[Exception], object] = Exception,
        ignore: ErrorTypes = (),
        failure_result: Predicate | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = chance.random,
    ) -> None:
        """Times are in seconds. Raises `ValueError` or `TypeError`, naming the wrong parameter.

        `trip` is what opens the circuit: any of the rules. `cooldown` is how long it stays open.
        Half-open, it lets one probe in, and for each that succeeds twice as many at once, until
        `success_threshold` have. A probe silent for `probe_timeout`, by default the cooldown, has
        lost its slot.

        An exception is neutral if it is of a type in `ignore`, or no `Exception` at all
        (cancellation, `KeyboardInterrupt`, `GeneratorExit`); else a failure if `failure_on` says
        so; else a success, because what was called works and refused this one call. A result is a
        failure if `failure_result` says so. A predicate that raises is logged, and the call is
        neutral.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}")
        if not name.strip():
            raise ValueError("name must not be empty")
        rules = trip if isinstance(trip, tuple) else (trip,)
        if not rules:
            raise ValueError("trip must hold a rule")
        for rule in rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"trip must be a rule or a tuple of rules, not {rule!r}")
        if not isinstance(cooldown, Backoff):
            checks.positive("cooldown", cooldown)
            cooldown = Backoff(cooldown, maximum=cooldown)
        checks.count("success_threshold", success_threshold)
        if probe_timeout is not None:
            checks.positive("probe_timeout", probe_timeout)
        if isinstance(failure_on, type | tuple):
            failure_on = checks.exception_types("failure_on", failure_on)
        checks.function("failure_on", failure_on)
        checks.exception_types("ignore", ignore)
        if failure_result is not None:
            checks.function("failure_result", failure_result)
        checks.function("clock", clock)
        checks.function("random", random)
        self.name = name
        self._success_threshold = success_threshold
        self._probe_timeout = probe_timeout
        self._failure_on: Predicate = failure_on
        self._ignored = ignore
        self._failure_result = failure_result
        self._clock = clock
        self._cooldowns = Cooldowns(cooldown, random)
        self._slow = min(
            (rule.slower_than for rule in rules if isinstance(rule, SlowCallRate)), default=None
        )
        self._lock = Lock()
        self._listeners = Listeners()
        self._counters = [start(rule) for rule in rules]
        self._isolations: set[Isolation] = set()
        self._probes: dict[int, float] = {}  # the number of a probe: when it loses its slot
        self._given_back: deque[int] = deque()  # numbers of probes that ended without a verdict
        self._last_failure: BaseException | None
        self._last_number = self._failed = self._rejected = self._opened = self._successes = 0
        self._probe_limit = cooldown.initial
        self._retry_at = 0.0
        self._coordinator: Coordinator | None = None
        self._epoch = 0
        self._followed_isolation = Isolation(self)
        self._beneath: tuple[State, float] = (CLOSED, 0.0)  # where a release leads to, until when
        self._state = CLOSED
        self._since = clock()
        self._enter(CLOSED, self._since, "made")

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r}: {self.state}>"

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)` under guard. Raises `CircuitOpen` instead of calling it.

        If it returns a coroutine, a generator or an async generator, the caller gets one that does
        the same, and the verdict falls when that ends.
        """
        return cast("R", calls.function(self, fn)(*args, **kwargs))

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)` under guard. Raises `CircuitOpen` instead of calling it."""
        return cast("R", await calls.coroutine_function(self, fn)(*args, **kwargs))

    def __call__(self, fn: F) -> F:
        """Decorate a function, coroutine function, generator or async generator function.

        The circuit is asked when the body starts to run: for generators, with the first item.
        """
        guarded: Callable[..., Any]
        if inspect.iscoroutinefunction(fn):
            guarded = calls.coroutine_function(self, fn)
        elif inspect.isgeneratorfunction(fn):
            guarded = calls.generator_function(self, fn, self.acquire)
        elif inspect.isasyncgenfunction(fn):
            guarded = calls.async_generator_function(self, fn)
        else:
            guarded = calls.function(self, fn)
        return cast("F", wraps(fn)(guarded))

    def guard(self) -> Guard:
        """For `with` and `async with`; entering it raises `CircuitOpen`, or gives the permit."""
        return Guard(self)

    def acquire(self) -> Permit:
        """A permit for one call, to be settled by hand. Raises `CircuitOpen`."""
        while True:
            permit = self._admit()
            coordinator = self._coordinator
            if coordinator is None or not isinstance(permit, Probe):
                return permit
            answer: Grant | Denied
            try:
                answer = coordinator.ask()
            except Exception:  # noqa: BLE001 - logged, with its traceback
                logger.exception("ask() of a coordinator raised, the probe is denied")
                answer = Denied(0.0)
            if granted := self._take_answer(permit, answer):
                return granted

    async def _acquire(self) -> Permit:
        """As `acquire`, for callers who can wait for a grant."""
        while True:
            permit = self._admit()
            coordinator = self._coordinator
            if coordinator is None or not isinstance(permit, Probe):
                return permit
            answer: Grant | Denied
            try:
                answer = await coordinator.claim()
            except Exception:  # noqa: BLE001 - logged, with its traceback
                logger.exception("claim() of a coordinator raised, the probe is denied")
                answer = Denied(0.0)
            except BaseException:
                self._ignore(permit)
                raise
            if granted := self._take_answer(permit, answer):
                return granted

    def _take_answer(self, probe: Probe, answer: Grant | Denied) -> Permit | None:
        """What the caller gets; None to look again. Raises `CircuitOpen`."""
        with self._locked() as now:
            if isinstance(answer, Grant):
                taken = self._take_grant(probe, answer, now)
            else:
                taken = None
                if probe.number in self._probes:  # somebody else's probe holds the slot
                    self._probes[probe.number] = now + answer.retry_after
                probe.settled = True
            closed = self._state is CLOSED
            state, wait, failure = self._state, max(self._wait(now), 0.0), self._last_failure
            if taken is None and not closed:
                self._rejected += 1
                self._say(events.CallRejected, state, wait)
        if taken is not None:
            return taken
        if isinstance(answer, Grant):
            self._tell_coordinator("settled", answer, Verdict.NEUTRAL, state, 0.0)
        if not closed:
            raise CircuitOpen(self.name, state, wait, failure)
        return None

    def _take_grant(self, probe: Probe, grant: Grant, now: float) -> Permit | None:
        mine = self._probes.pop(probe.number, None) is not None
        probe.settled = not mine
        until = probe.started + grant.lease
        stopped = self._state is ISOLATED or self._state is CLOSED
        if grant.fence < self._epoch or now >= until or stopped:
            probe.settled = True
            return None
        self._epoch = grant.fence
        if not mine:  # news of this very grant was faster than the answer
            self._enter(HALF_OPEN, now, "cooldown elapsed")
            self._last_number += 1
            probe = Probe(self, self._last_number, now)
        self._probes[probe.number] = until
        probe.grant = grant
        return probe

    def join(self, coordinator: Coordinator) -> Callable[[], None]:
        """Act as one with the breakers of other nodes. Returns the function that ends it.

        Raises `RuntimeError` if it has joined a cluster already.
        """
        if self._coordinator is not None:
            raise RuntimeError(f"circuit {self.name!r} has joined a cluster already")
        self._coordinator = coordinator

        def leave() -> None:
            if self._coordinator is coordinator:
                self._coordinator = None
                self.follow(self._epoch + 1, self._beneath[0] if self._isolations else self._state)

        return leave

    @property
    def epoch(self) -> int:
        """The newest decision of a cluster that this breaker follows; 0 if there was none."""
        return self._epoch

    def follow(self, epoch: int, state: State, remaining: float = 0.0) -> bool:
        """Take over what a cluster has decided; returns whether that was news.

        An epoch that is not above the one followed so far changes nothing, so the same decision
        may come any number of times and in any order. `remaining` is how many seconds the circuit
        stays `OPEN`, or how long another node's probe may take while it is `HALF_OPEN`. Calls in
        flight count nowhere if the state changes. To follow into the state it is in keeps what is
        counted while closed, and sets the time again otherwise.

        An isolation by this node's operator stays: once it is released, the circuit is where the
        cluster says. `ISOLATED` isolates this breaker until a newer epoch says otherwise.
        """
        checks.count("epoch", epoch)
        checks.number("remaining", remaining)
        state = State(state)
        with self._locked() as now:
            if epoch <= self._epoch:
                return False
            self._epoch = epoch
            if state is ISOLATED:
                self._isolations.add(self._followed_isolation)
                if self._state is not ISOLATED:
                    self._enter(ISOLATED, now, "followed the cluster")
                return True
            self._beneath = (state, now + remaining)
            self._isolations.discard(self._followed_isolation)
            if not self._isolations:
                self._go_on(now, "followed the cluster")
            return True

    def _go_on(self, now: float, reason: str) -> None:
        """Enter the state that an isolation hid, or that the cluster is in."""
        (state, until), self._beneath = self._beneath, (CLOSED, 0.0)
        if state is CLOSED:
            if self._state is not CLOSED:
                self._enter(CLOSED, now, reason)
            return
        self._probe_limit = self._probe_timeout or self._cooldowns.next
        self._retry_at = until
        self._enter(state, now, reason)
        if state is HALF_OPEN and until > now:
            self._last_number += 1
            self._probes[self._last_number] = until  # of another node

    def _tell_coordinator(self, method: str, *arguments: Any) -> None:
        if self._coordinator is None:
            return
        try:
            getattr(self._coordinator, method)(*arguments)
        except Exception:  # noqa: BLE001 - logged, with its traceback
            logger.exception("%s() of a coordinator raised", method)

    def _tell_steered(self) -> None:
        if self._coordinator is not None:
            state = self._state
            remaining = max(self._retry_at - self._clock(), 0.0) if state is OPEN else 0.0
            self._tell_coordinator("steered", state, remaining)

    def _tell_settled(self, permit: Permit, verdict: Verdict) -> None:
        grant, permit.grant = permit.grant, None
        if grant is not None:
            state = self._state
            remaining = max(self._retry_at - self._clock(), 0.0) if state is OPEN else 0.0
            self._tell_coordinator("settled", grant, verdict, state, remaining)

    def _admit(self) -> Permit:
        number = self._closed
        if number:
            return Permit(self, number, self._clock() if self._slow else 0.0)
        now = self._clock()
        with self._lock:
            permit = self._try_to_admit(now)
            if permit is None:
                self._rejected += 1
                state, wait, failure = self._state, self._wait(now), self._last_failure
                self._say(events.CallRejected, state, wait)
        self._listeners.deliver()
        if permit is None:
            raise CircuitOpen(self.name, state, wait, failure)
        return permit

    @property
    def state(self) -> State:
        """Still `OPEN` when the cooldown is over: the first call after it makes it half-open."""
        return self._state

    def snapshot(self) -> Snapshot:
        with self._locked() as now:
            self._take_back()
            probes = len([at for at in self._probes.values() if at > now])
            free = self._state is HALF_OPEN and probes < self._probes_allowed()
            return Snapshot(
                name=self.name,
                state=self._state,
                in_state_for=now - self._since,
                retry_after=0.0 if free else max(self._wait(now), 0.0),
                next_cooldown=self._cooldowns.next,
                rules=tuple(counter.reading(now) for counter in self._counters),
                probes=probes,
                probes_allowed=self._probes_allowed(),
                successes=self._successes,
                success_threshold=self._success_threshold,
                failed=self._failed,
                rejected=self._rejected,
                opened=self._opened,
                last_failure=self._last_failure,
            )

    def trip(self, for_: float | None = None) -> None:
        """Open it, for so many seconds instead of the cooldown. An isolated breaker stays isolated.

        If it is open, the time begins again.
        """
        if for_ is not None:
            checks.positive("for_", for_)
        self._cooldowns.draw()
        with self._locked() as now:
            if self._state is not ISOLATED:
                self._open("tripped by hand", now, for_)
        self._tell_steered()

    def isolate(self) -> Isolation:
        """Let no call in until the handle is released: all of them, if there are several.

        Then the circuit is closed, with nothing counted.
        """
        handle = Isolation(self)
        with self._locked() as now:
            self._isolations.add(handle)
            if self._state is not ISOLATED:
                self._enter(ISOLATED, now, "isolated by hand")
        self._tell_steered()
        return handle

    def _release(self, handle: Isolation) -> None:
        with self._locked() as now:
            if handle in self._isolations:
                self._isolations.remove(handle)
                if not self._isolations:
                    self._go_on(now, "released by hand")
        if not self._isolations:
            self._tell_steered()

    def reset(self) -> None:
        """As new: closed, with nothing counted. Isolation ends, calls in flight count nowhere."""
        with self._locked() as now:
            self._isolations.clear()
            self._beneath = (CLOSED, 0.0)
            self._enter(CLOSED, now, "reset by hand")
        self._tell_steered()

    def on(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """Call `listener` with every such event; returns the function that ends it.

        Events come in order and one at a time, in the thread of some caller, with no lock held: a
        listener may use the breaker. It should be quick. What it raises is logged.
        """
        return self._listen(event, listener, once=False)

    def once(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """As `on`, but for one event."""
        return self._listen(event, listener, once=True)

    def _listen(
        self, event: type[E], listener: Callable[[E], object], *, once: bool
    ) -> Callable[[], None]:
        if event not in Event.__subclasses__():
            raise TypeError(f"event must be one of the event types, not {event!r}")
        checks.function("listener", listener)
        if inspect.iscoroutinefunction(listener):
            raise TypeError("listener must not be a coroutine function: nobody would await it")

        def hear(happened: E) -> None:
            if once:
                leave()
            listener(happened)

        def leave() -> None:
            with self._locked():
                left = (each for each in self._listeners.of[event] if each is not hear)
                self._listeners.of[event] = tuple(left)
                self._look_for_calm()

        with self._locked():
            self._listeners.of[event] = (*self._listeners.of.get(event, ()), hear)
            self._look_for_calm()
        return leave

    def _raised(self, permit: Permit, exc: BaseException) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, self._ignored):
            self._judge(permit, self._failure_on, exc, exc)
        else:
            self._ignore(permit, exc)

    def _returned(self, permit: Permit, result: object) -> None:
        if self._failure_result is None:
            permit.success()
        else:
            self._judge(permit, self._failure_result, result)

    def _judge(self, permit: Permit, fails: Predicate, subject: Any, error: Any = None) -> None:
        try:
            failed = bool(fails(subject))
        except Exception:  # noqa: BLE001 - logged, with its traceback
            setting = "failure_result" if error is None else "failure_on"
            logger.exception("%s raised, the call counts as neutral", setting)
            self._ignore(permit, error)
        else:
            self._settle(permit, error, failed=failed)

    def _settle(self, permit: Permit, error: BaseException | None = None, *, failed: bool) -> bool:
        if not failed and self._calm == permit.number:
            first = not permit.settled
            permit.settled = True
            return first
        now = self._clock()
        self._cooldowns.draw()
        with self._lock:
            opening = self._opened + 1
            counts = self._take_verdict(permit, now, error, failed=failed)
            opened = self._opened == opening
        if opened and error is not None:
            kept = stand_in(error)  # runs code of the exception, so not under the lock
            with self._lock:
                if self._opened == opening:
                    self._last_failure = kept
        self._listeners.deliver()
        if permit.grant is not None:
            verdict = Verdict.FAILURE if failed else Verdict.SUCCESS
            self._tell_settled(permit, verdict if counts else Verdict.NEUTRAL)
        elif counts and failed:
            self._tell_coordinator("failed")
            if opened:
                self._tell_coordinator("tripped", max(self._retry_at - now, 0.0))
        return counts

    def _ignore(self, permit: Permit, error: BaseException | None = None) -> bool:
        # A forgotten generator is closed by garbage collection, maybe while this very thread holds
        # the lock. So this never waits for it, and leaves the event to whoever holds it.
        if permit.settled:
            return False
        permit.settled = True
        current = permit.number == self._closed
        if permit.number in self._probes:
            current = True
            self._given_back.append(permit.number)
        self._say(events.CallIgnored, error)
        if not self._lock.locked():
            self._listeners.deliver()
        if permit.grant is not None:
            self._tell_settled(permit, Verdict.NEUTRAL)
        return current

    @contextmanager
    def _locked(self) -> Iterator[float]:
        now = self._clock()
        with self._lock:
            yield now
        self._listeners.deliver()

    # The rest runs under the lock

    def _try_to_admit(self, now: float) -> Permit | None:
        if self._state is OPEN and now >= self._retry_at:
            self._enter(HALF_OPEN, now, "cooldown elapsed")
        if self._state is CLOSED:  # since it was looked at
            return Permit(self, self._closed, now)
        self._end_overdue_probes(now)
        if self._state is not HALF_OPEN or len(self._probes) >= self._probes_allowed():
            return None
        self._last_number += 1
        self._probes[self._last_number] = now + self._probe_limit
        return Probe(self, self._last_number, now)

    def _take_verdict(
        self, permit: Permit, now: float, error: BaseException | None, *, failed: bool
    ) -> bool:
        if permit.settled:
            return False
        permit.settled = True
        if permit.number != self._closed:
            self._end_overdue_probes(now)
            if self._probes.pop(permit.number, None) is None:
                self._say(events.CallIgnored, error)
                return False
        if failed:
            self._failed += 1
            self._say(events.CallFailed, error)
        else:
            self._say(events.CallSucceeded)
        duration = now - permit.started
        if self._state is CLOSED:
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
            if self._successes == self._success_threshold:
                self._enter(CLOSED, now, "recovered")
        return True

    def _end_overdue_probes(self, now: float) -> None:
        self._take_back()
        # All had the same time, so the first to come is the first to lose its slot.
        while self._probes and next(iter(self._probes.values())) <= now:
            del self._probes[next(iter(self._probes))]
            self._say(events.ProbeExpired)

    def _probes_allowed(self) -> int:
        return 1 << min(self._successes, _DOUBLINGS)

    def _open(self, reason: str, now: float, lasting: float | None = None) -> None:
        self._probe_limit = self._probe_timeout or self._cooldowns.next
        if lasting is None:
            lasting = self._cooldowns.take()
        self._retry_at = now + lasting
        self._opened += 1
        self._last_failure = None
        self._enter(OPEN, now, reason)

    def _enter(self, state: State, now: float, reason: str) -> None:
        old, self._state = self._state, state
        self._last_number += 1
        self._probes.clear()
        self._given_back.clear()
        self._successes = 0
        if state is CLOSED:
            self._counters = [start(counter.rule) for counter in self._counters]
            self._cooldowns.start_over()
            self._last_failure = None
        self._closed = self._last_number if state is CLOSED else 0
        self._look_for_calm()
        if state is not old:
            self._since = now
            self._say(events.StateChanged, old, state, reason)

    def _look_for_calm(self) -> None:
        """Set what calls look at without the lock; 0 stands for no."""
        eventful = (
            self._slow
            or self._failure_result is not None
            or self._listeners.of.get(events.CallSucceeded)
            or True in [counter.hears_successes for counter in self._counters]
        )
        self._calm = 0 if eventful else self._closed
        quiet = self._state is OPEN and not self._listeners.of.get(events.CallRejected)
        self._refused_until = self._retry_at if quiet else 0.0

    def _take_back(self) -> None:
        while self._given_back:
            self._probes.pop(self._given_back.popleft(), None)

    def _wait(self, now: float) -> float:
        """How long a call has to wait that is refused now."""
        if self._state is CLOSED:
            return 0.0
        if self._state is OPEN:
            return self._retry_at - now
        if self._state is ISOLATED:
            return self._cooldowns.next
        return next(iter(self._probes.values()), now) - now

    def _say(self, event: type[Event], *fields: Any) -> None:
        if self._listeners.of.get(event):
            self._listeners.queue.append(event(self, *fields))

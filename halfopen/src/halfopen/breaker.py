import inspect
import random as chance
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ParamSpec, TypeVar, cast

from halfopen import calls, checks, saved
from halfopen.calls import Guard, Isolation
from halfopen.circuit import NOTHING_TRIED, Cause, Circuit, Kind, Period, Policy
from halfopen.cluster import Coordinator
from halfopen.cooldowns import Backoff, Cooldown, CooldownOf
from halfopen.core import Core, Permit
from halfopen.rules import ConsecutiveFailures, Rule
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, Snapshot, State
from halfopen.verdicts import ErrorTypes, Judge, Predicate

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")
E = TypeVar("E", bound="Event")

_DEFAULT_RULE = ConsecutiveFailures(5)


class CircuitBreaker:
    """Stops calling a service that keeps failing, and tests with single probes if it recovered.

    Safe to use from any number of threads and tasks, also without a GIL, from signal handlers and
    finalizers. There is no lock: no call waits for another. Callers see the original exceptions. A
    call that ends in another state than it began in does not count.
    """

    def __init__(
        self,
        name: str,
        *,
        trip: Rule | tuple[Rule, ...] = _DEFAULT_RULE,
        cooldown: float | Backoff | CooldownOf = 10.0,
        success_threshold: int = 1,
        success_share: float = 1.0,
        probe_timeout: float | None = None,
        failure_on: ErrorTypes | Callable[[Exception], object] = Exception,
        ignore: ErrorTypes = (),
        failure_result: Predicate | None = None,
        shadow: bool = False,
        state: Mapping[str, object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = chance.random,
    ) -> None:
        """Times are in seconds. Raises `ValueError` or `TypeError`, naming the wrong parameter.

        - `name`: the breaker's name in logs, metrics and refusals.
        - `trip`: the rule that opens the circuit, or several rules, any of which opens it.
        - `cooldown`: how long it stays open. A function is called for each opening, with the
          exception or None, and returns seconds, for example from a `Retry-After`.
        - `success_threshold`: the number of probes that decide on a half-open circuit. At first one
          may be in flight; each success doubles that, up to the number of missing successes.
        - `success_share`: the fraction of these probes that must succeed. The circuit closes when
          enough have succeeded, and opens again when so many have failed that this is impossible;
          by default after the first failure.
        - `probe_timeout`: how long a probe may be silent before the next one may take its slot. Its
          verdict still counts while the circuit is half-open. The default is the cooldown.
        - `failure_on`: the exceptions that are failures: types, or a predicate. Others are
          successes, because the service works and refused only this call. Exceptions that are not
          an `Exception` (cancellation, `KeyboardInterrupt`, `GeneratorExit`) are neutral, and so is
          `CircuitOpen` unless a type names it. A group counts like its leaves. If a predicate
          raises, that is logged, and the call is neutral.
        - `ignore`: types of exceptions that are neutral.
        - `failure_result`: a predicate for results that are failures.
        - `shadow`: count, change state and emit events, but refuse nothing. A call that would have
          been refused is reported as rejected and does not count.
        - `state`: the result of `export()`, from this or an earlier process.
        - `clock`: must never go back. `random`: returns a number from 0 to 1, for jitter.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}")
        if not name.strip():
            raise ValueError("name must not be empty")
        rules = trip if isinstance(trip, tuple) else (trip,)
        if not rules:
            raise ValueError("trip must hold a rule")
        for rule in rules:
            if isinstance(rule, type) or not isinstance(rule, Rule):
                raise TypeError(f"trip must be a rule or a tuple of rules, not {rule!r}")
        checks.count("success_threshold", success_threshold)
        checks.positive("success_share", success_share, at_most=1.0)
        if probe_timeout is not None:
            checks.positive("probe_timeout", probe_timeout)
        checks.flag("shadow", shadow)
        checks.function("clock", clock)
        checks.function("random", random)
        policy = Policy(
            rules=rules,
            fresh=tuple(rule.start() for rule in rules),
            limits=tuple(getattr(rule, "slower_than", None) for rule in rules),
            cooldown=Cooldown(cooldown, random),
            success_threshold=success_threshold,
            successes_needed=_share_of(success_threshold, success_share),
            probe_timeout=probe_timeout,
        )
        now = clock()
        circuit = Circuit(
            policy=policy,
            period=Period(ISOLATED, now),
            counters=(),
            trial=NOTHING_TRIED,
            step=0,
            failed=0,
            opened=0,
            epoch=0,
            isolations=frozenset(),
            listeners={},
            waiting=(),
            dropped=0,
        ).enter(CLOSED, now, "made")
        if state is not None:
            circuit = saved.restore(circuit, state, now)
        self._core = Core(
            name,
            circuit,
            judge=Judge(failure_on, ignore, failure_result),
            clock=clock,
            shadow=shadow,
            event=lambda kind, fields: _EVENTS[kind](self, *fields),
        )

    @property
    def name(self) -> str:
        return self._core.name

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r}: {self.state}>"

    def __deepcopy__(self, _memo: object) -> "CircuitBreaker":
        return self  # as `dataclasses.asdict` of an event asks for

    # Calling

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn(*args, **kwargs)`, guarded. Raises `CircuitOpen` instead of calling it.

        If `fn` returns unfinished work, the call is judged when that ends: a future or task is
        returned unchanged; any other awaitable, or a generator of either kind, is wrapped.
        """
        calls.check_callable(fn)
        return cast("R", calls.function(self._core, fn)(*args, **kwargs))

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)`, guarded. Raises `CircuitOpen` instead of calling it."""
        calls.check_callable(fn)
        return cast("R", await calls.awaiting(self._core, fn, *args, **kwargs))

    def __call__(self, fn: F) -> F:
        """Decorate a function, coroutine function, generator or async generator function.

        The circuit is checked when the body starts to run: for generators, with the first item.
        Raises `TypeError` for anything but a function, and for context managers.
        """
        return cast("F", calls.decorate(self._core, fn))

    def guard(self) -> Guard:
        """For `with` and `async with`; entering it raises `CircuitOpen`, or gives the permit."""
        return Guard(self._core)

    def acquire(self) -> Permit:
        """A permit for one call, to be settled by hand. Raises `CircuitOpen`."""
        return self._core.acquire()

    # Reading

    @property
    def state(self) -> State:
        """Still `OPEN` when the cooldown is over: the first call after it makes it half-open."""
        core = self._core
        moment = core.moment
        return (core.latest() if moment.following else moment).period.state

    def snapshot(self) -> Snapshot:
        now = self._core.clock()
        circuit = self._core.circuit
        seen = circuit.expire_probes(now)
        half_open = circuit.state is HALF_OPEN
        snapshot = Snapshot(
            name=self.name,
            state=circuit.state,
            in_state_for=now - circuit.period.since,
            retry_after=0.0 if circuit.state is CLOSED else seen.wait(now),
            next_cooldown=circuit.policy.cooldown.usual(circuit.step),
            rules=circuit.readings(now),
            probes=len(seen.trial.probes),
            probes_allowed=seen.probes_allowed if half_open else 1,
            successes=circuit.trial.successes,
            success_threshold=circuit.policy.success_threshold,
            failed=circuit.failed,
            rejected=self._core.rejected,
            opened=circuit.opened,
            last_failure=circuit.period.last_failure,
        )
        self._core.deliver()
        return snapshot

    @property
    def events_dropped(self) -> int:
        """Number of events that were dropped because too many waited for the listeners."""
        return self._core.circuit.dropped

    def export(self) -> dict[str, object]:
        """The state to keep over a restart, for the parameter `state`; JSON can represent it.

        It says whether the circuit is open, for how many seconds, and how far its cooldowns have
        grown. It contains the wall time of the export, so that the time until the restart counts. A
        half-open circuit is exported as one with an ended cooldown. An isolation ends with its
        process, because nobody could release it; counted failures are forgotten.
        """
        return saved.export(self._core.circuit, self._core.clock())

    # Steering

    def trip(self, for_: float | None = None, *, reason: str = "tripped by hand") -> None:
        """Open the circuit, for `for_` seconds or the cooldown. An isolated one stays isolated.

        If it is already open, the time starts again. Listeners get `reason`.
        """
        if for_ is not None:
            checks.positive("for_", for_)
        now = self._core.clock()
        cause = Cause(self._core.cooldown, None)

        def trip(circuit: Circuit) -> tuple[Circuit, None]:
            if circuit.state is ISOLATED:
                return circuit, None
            return circuit.open(now, reason, cause, for_), None

        self._steer(trip)

    def isolate(self) -> Isolation:
        """Refuse every call until the handle is released; with several handles, until all are.

        Then the circuit is open again for the rest of its time if it was open before; otherwise it
        is closed, with nothing counted. Calls in flight do not count.
        """
        now = self._core.clock()
        handle = Isolation(self._release)
        self._steer(lambda circuit: (circuit.isolate(handle, now, "isolated by hand"), None))
        return handle

    def _release(self, handle: Isolation) -> None:
        now = self._core.clock()
        self._steer(lambda circuit: (circuit.release(handle, now, "released by hand"), None))

    def reset(self) -> None:
        """Close it with nothing counted. Isolation ends; calls in flight do not count."""
        now = self._core.clock()

        def reset(circuit: Circuit) -> tuple[Circuit, None]:
            return circuit._replace(isolations=frozenset()).enter(
                CLOSED, now, "reset by hand"
            ), None

        self._steer(reset)

    def _steer(self, step: Callable[[Circuit], tuple[Circuit, None]]) -> None:
        before = self._core.circuit.period
        self._core.change(step)
        self._core.deliver()
        if self._core.circuit.period is not before:
            self._core.steered()

    # Listening

    def on(self, event: "type[E]", listener: Callable[[E], object]) -> Callable[[], None]:
        """Call `listener` with every event of this type; returns a function that ends this.

        `Event` means all types. Events come in order and one at a time, in the thread of some
        caller. A listener may use the breaker. It should be fast: if listeners take long, a caller
        leaves the remaining events to the next caller. Exceptions of a listener are logged. If
        thousands of events wait, the oldest are dropped, and `events_dropped` counts them.
        """
        return self._listen(event, listener, once=False)

    def once(self, event: "type[E]", listener: Callable[[E], object]) -> Callable[[], None]:
        """As `on`, but for one event."""
        return self._listen(event, listener, once=True)

    def _listen(
        self, event: "type[E]", listener: Callable[[E], object], *, once: bool
    ) -> Callable[[], None]:
        kinds = kinds_to_hear(event, listener)
        last: object = None

        def hear(ticket: object, happened: E) -> None:
            nonlocal last
            if ticket is last:
                return  # delivered again, because a signal handler interrupted the delivery
            if once:
                leave()
            last = ticket
            listener(happened)

        def join(circuit: Circuit) -> tuple[Circuit, None]:
            listeners = dict(circuit.listeners)
            for kind in kinds:
                listeners[kind] = (*listeners.get(kind, ()), hear)
            return circuit._replace(listeners=listeners), None

        def part(circuit: Circuit) -> tuple[Circuit, None]:
            listeners = {
                kind: left
                for kind, all_of_them in circuit.listeners.items()
                if (left := tuple([each for each in all_of_them if each is not hear]))
            }
            return circuit._replace(listeners=listeners), None

        def leave() -> None:
            self._core.change(part)

        self._core.change(join)
        return leave

    # Acting as one with the breakers of other nodes

    def join(self, coordinator: Coordinator) -> Callable[[], None]:
        """Share one circuit with the breakers of other nodes. Returns a function that ends this.

        Raises `RuntimeError` if it has joined a cluster already. See `halfopen.cluster`.
        """
        if self._core.coordinator is not None:
            raise RuntimeError(f"circuit {self.name!r} has joined a cluster already")
        self._core.coordinator = coordinator

        def leave() -> None:
            if self._core.coordinator is coordinator:
                self._core.coordinator = None
                now = self._core.clock()
                self._core.change(lambda circuit: (circuit.leave_cluster(now), None))
                self._core.deliver()

        return leave

    @property
    def epoch(self) -> int:
        """The newest decision of a cluster that this breaker follows; 0 if there was none."""
        return self._core.circuit.epoch

    def follow(self, epoch: int, state: State, remaining: float = 0.0) -> bool:
        """Adopt a cluster's decision; returns whether it was new.

        An epoch that is not above the current one changes nothing, so decisions may arrive several
        times and in any order. `remaining` is how many seconds the circuit stays `OPEN`, or how
        long another node's probe may take while it is `HALF_OPEN`. If the state changes, calls in
        flight do not count. If the state stays the same, a closed circuit keeps its counts, and any
        other gets a new time.

        An isolation by this node's operator stays; when it is released, the circuit has the
        cluster's state. `ISOLATED` isolates this breaker until a newer epoch.
        """
        checks.count("epoch", epoch)
        checks.number("remaining", remaining)
        state = State(state)
        now = self._core.clock()

        def follow(circuit: Circuit) -> tuple[Circuit, bool]:
            if epoch <= circuit.epoch:
                return circuit, False
            return circuit._replace(epoch=epoch).follow(state, now + remaining, now), True

        news = self._core.change(follow)
        self._core.deliver()
        return news


def kinds_to_hear(event: "type[Event]", listener: object) -> list[Kind]:
    """Raises `TypeError` if they are not an event and a listener."""
    kinds = [kind for kind, each in _EVENTS.items() if event is each or event is Event]
    if not kinds:
        raise TypeError(f"event must be one of the event types, not {event!r}")
    checks.function("listener", listener)
    if inspect.iscoroutinefunction(listener):
        raise TypeError("listener must not be a coroutine function: nobody would await it")
    return kinds


def _share_of(threshold: int, share: float) -> int:
    """The smallest number that is at least this share: 0.07 * 100 is more than 7."""
    needed = ceil(threshold * share)
    return needed - 1 if needed > 1 and (needed - 1) / threshold >= share else needed


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events. The breaker's `name` is the label for logs and metrics."""

    breaker: CircuitBreaker


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The state changed from `old` to `new`. `reason` is one of few texts, such as the rule."""

    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class CallSucceeded(Event):
    """A call counted as a success."""


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A call counted as a failure. `error` is None for a bad result."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CallIgnored(Event):
    """A call did not count: it was neutral, or its result came too late."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CallRejected(Event):
    """A call was refused in `state`, for another `retry_after` seconds."""

    state: State
    retry_after: float


@dataclass(frozen=True, slots=True)
class ProbeExpired(Event):
    """A probe was silent for the probe timeout and lost its slot; its result may still count."""


_EVENTS: dict[Kind, type[Event]] = {
    Kind.STATE_CHANGED: StateChanged,
    Kind.CALL_SUCCEEDED: CallSucceeded,
    Kind.CALL_FAILED: CallFailed,
    Kind.CALL_IGNORED: CallIgnored,
    Kind.CALL_REJECTED: CallRejected,
    Kind.PROBE_EXPIRED: ProbeExpired,
}

from __future__ import annotations

import inspect
import random as chance
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from halfopen import calls, checks
from halfopen.circuit import Circuit
from halfopen.events import Event
from halfopen.listeners import E
from halfopen.permit import Guard, Isolation, Permit
from halfopen.recovery import Backoff
from halfopen.rules import FailureCount, Rule
from halfopen.state import Snapshot, State
from halfopen.verdicts import ErrorTypes, Judge

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_RULE = FailureCount(5, within=60.0)


class CircuitBreaker:
    """Stops calling what keeps failing, and tries with single probes whether it works again.

    Safe to use from any number of threads and tasks, also without a GIL. It holds no lock while
    code that is not its own runs. A caller sees the exceptions of what it called unchanged; what
    ends in another state than it began in counts nowhere.
    """

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
        failure_result: Callable[[Any], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = chance.random,
    ) -> None:
        """Times are in seconds. Raises `ValueError` or `TypeError`, naming the wrong parameter.

        `trip` is what opens the circuit: any of the rules. `cooldown` is how long it stays open.
        Half-open, it lets one probe in, and for each that succeeds twice as many at once, until
        `success_threshold` have. A probe silent for `probe_timeout`, by default the cooldown, has
        lost its slot. `Judge` says what counts as a failure.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}")
        if not name.strip():
            raise ValueError("name must not be empty")
        self.name = name
        rules = trip if isinstance(trip, tuple) else (trip,)
        if not rules:
            raise ValueError("trip must hold a rule")
        for rule in rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"trip must be a rule or a tuple of rules, not {rule!r}")
        if not isinstance(cooldown, Backoff):
            checks.positive("cooldown", cooldown)
            cooldown = Backoff(cooldown, multiplier=1.0, maximum=cooldown)
        checks.count("success_threshold", success_threshold)
        if probe_timeout is not None:
            checks.positive("probe_timeout", probe_timeout)
        checks.function("clock", clock)
        checks.function("random", random)
        judge = Judge(failure_on, ignore, failure_result)
        self._circuit = Circuit(
            self, rules, cooldown, success_threshold, probe_timeout, judge, clock, random
        )

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r}: {self.state}>"

    # Calls

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)` under guard. Raises `CircuitOpen` instead of calling it.

        If it returns a coroutine, a generator or an async generator, the caller gets one that does
        the same, and the verdict falls when that ends.
        """
        return cast("R", calls.function(self._circuit, fn)(*args, **kwargs))

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)` under guard. Raises `CircuitOpen` instead of calling it."""
        return cast("R", await calls.coroutine_function(self._circuit, fn)(*args, **kwargs))

    def __call__(self, fn: F) -> F:
        """Decorate a function, coroutine function, generator or async generator function.

        The circuit is asked when the body starts to run: for generators, with the first item.
        """
        guarded: Callable[..., Any]
        if inspect.iscoroutinefunction(fn):
            guarded = calls.coroutine_function(self._circuit, fn)
        elif inspect.isgeneratorfunction(fn):
            guarded = calls.generator_function(self._circuit, fn, self._circuit.admit)
        elif inspect.isasyncgenfunction(fn):
            guarded = calls.async_generator_function(self._circuit, fn, self._circuit.admit)
        else:
            guarded = calls.function(self._circuit, fn)
        return cast("F", wraps(fn)(guarded))

    def guard(self) -> Guard:
        """For `with` and `async with`; entering it raises `CircuitOpen`, or gives the permit."""
        return Guard(self._circuit)

    def acquire(self) -> Permit:
        """A permit for one call, to be settled by hand. Raises `CircuitOpen`."""
        return self._circuit.admit()

    # Reading, which changes nothing

    @property
    def state(self) -> State:
        """Still `OPEN` when the cooldown is over: the first call after it makes it half-open."""
        return self._circuit.state

    def snapshot(self) -> Snapshot:
        return self._circuit.snapshot()

    # By hand

    def trip(self, for_: float | None = None) -> None:
        """Open it, for so many seconds instead of the cooldown. An isolated breaker stays isolated.

        If it is open, the time begins again.
        """
        if for_ is not None:
            checks.positive("for_", for_)
        self._circuit.trip(for_)

    def isolate(self) -> Isolation:
        """Let no call in until the handle is released: all of them, if there are several.

        Then the circuit is closed, with nothing counted.
        """
        handle = Isolation(self._circuit)
        self._circuit.isolate(handle)
        return handle

    def reset(self) -> None:
        """As new: closed, with nothing counted. Isolation ends, calls in flight count nowhere."""
        self._circuit.reset()

    # Listening

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
        return self._circuit.listen(event, listener, once=once)

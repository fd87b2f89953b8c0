from __future__ import annotations

import inspect
import random as chance
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import wraps
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, ParamSpec, TypeVar, cast

from halfopen import checks
from halfopen.circuit import Circuit
from halfopen.events import Event
from halfopen.judge import ErrorTypes, Judge
from halfopen.listeners import E
from halfopen.isolation import Isolation
from halfopen.permit import Guard, Permit
from halfopen.recovery import Backoff
from halfopen.rules import FailureCount, Rule
from halfopen.snapshot import Snapshot
from halfopen.state import State

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_RUNS_LATER = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


class CircuitBreaker:
    """Stops calling what keeps failing, and finds out with single probes whether it works again."""

    __slots__ = ("__weakref__", "_circuit", "_judge", "name")

    def __init__(
        self,
        name: str,
        *,
        trip: Rule | tuple[Rule, ...] = FailureCount(5, within=60.0),
        cooldown: float | Backoff = 10.0,
        success_threshold: int = 1,
        probe_timeout: float | None = None,
        failure_on: ErrorTypes | Callable[[Exception], object] = Exception,
        ignore: ErrorTypes = (),
        failure_result: Callable[[Any], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = chance.random,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}")
        if not name.strip():
            raise ValueError("name must not be empty")
        rules = trip if isinstance(trip, tuple) else (trip,)
        if not rules:
            raise ValueError("trip must hold at least one rule")
        for rule in rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"trip must be a rule or a tuple of rules, not {rule!r}")
        if not isinstance(cooldown, Backoff):
            checks.seconds("cooldown", cooldown)
            cooldown = Backoff(cooldown, multiplier=1.0, maximum=cooldown)
        checks.count("success_threshold", success_threshold)
        if probe_timeout is not None:
            checks.seconds("probe_timeout", probe_timeout)
        checks.function("clock", clock)
        checks.function("random", random)
        self.name = name
        self._judge = Judge(failure_on, ignore, failure_result)
        self._circuit = Circuit(
            self,
            rules=rules,
            cooldown=cooldown,
            success_threshold=success_threshold,
            probe_timeout=probe_timeout,
            reads_results=failure_result is not None,
            clock=clock,
            random=random,
        )

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r}: {self.state}>"

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)`, guarded. Raises `CircuitOpen` instead of calling it.

        If `fn` returns a coroutine, a generator or an async generator, what is returned in its
        place does the same, and the verdict falls when it ends.
        """
        circuit = self._circuit
        generation = circuit.calm
        permit = None if generation else circuit.admit()
        try:
            result = fn(*args, **kwargs)
        except BaseException as exc:
            self._raised(permit or Permit(circuit, generation), exc)
            raise
        if permit or circuit.calm != generation or type(result) in _RUNS_LATER:
            return cast("R", self._returned(permit or Permit(circuit, generation), result))
        return result

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)`, guarded. Raises `CircuitOpen` instead of calling it."""
        circuit = self._circuit
        generation = circuit.calm
        permit = None if generation else circuit.admit()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as exc:
            self._raised(permit or Permit(circuit, generation), exc)
            raise
        if permit or circuit.calm != generation:
            self._judged(permit or Permit(circuit, generation), result)
        return result

    def __call__(self, fn: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function.

        The circuit is asked when the body would start to run: for a generator, at its first item.
        """
        if inspect.iscoroutinefunction(fn):
            guarded: Any = self._coroutine_function(fn)
        elif inspect.isgeneratorfunction(fn):
            guarded = self._generator_function(fn)
        elif inspect.isasyncgenfunction(fn):
            guarded = self._async_generator_function(fn)
        else:
            guarded = self._function(fn)
        return cast("F", wraps(fn)(guarded))

    def guard(self) -> Guard:
        """A context manager, for `with` and `async with`, around what is to be guarded."""
        return Guard(self._circuit, self._judge)

    def acquire(self) -> Permit:
        """A permit for one call, to be settled by hand. Raises `CircuitOpen`."""
        circuit = self._circuit
        generation = circuit.calm
        return Permit(circuit, generation) if generation else circuit.admit()

    @property
    def state(self) -> State:
        """Open also when the cooldown is over: half-open begins with the first call after it."""
        return self._circuit.state

    def snapshot(self) -> Snapshot:
        """Everything a dashboard shows, at one instant. Changes nothing."""
        return self._circuit.snapshot()

    def trip(self, for_: float | None = None) -> None:
        """Open it now, for so many seconds instead of the cooldown, and start over if it is open.

        Nothing happens to an isolated breaker.
        """
        if for_ is not None:
            checks.seconds("for_", for_)
        self._circuit.trip(for_)

    def isolate(self) -> Isolation:
        """Refuse every call until the handle is released; of several handles, all must be."""
        return Isolation(self._circuit)

    def reset(self) -> None:
        """Back to the start: closed, nothing counted, no growth of the cooldown, no isolation."""
        self._circuit.reset()

    def on(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """Call `listener` with every such event; returns the function that ends it.

        Events arrive one at a time, in order, in the thread of a caller, without a lock being held:
        a listener may use the breaker, and should be quick. What it raises is logged.
        """
        if not (isinstance(event, type) and issubclass(event, Event)) or event is Event:
            raise TypeError(f"event must be one of the event types, not {event!r}")
        if inspect.iscoroutinefunction(listener):
            raise TypeError("listener must be a plain function: nobody would await it")
        checks.function("listener", listener)
        return self._circuit.listen(event, listener)

    def once(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """As `on`, for the next such event alone."""

        def first(happened: E) -> None:
            unsubscribe()
            listener(happened)

        unsubscribe = self.on(event, first)
        return unsubscribe

    def _function(self, fn: Callable[P, R]) -> Callable[P, R]:
        call = self.call

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return call(fn, *args, **kwargs)

        return guarded

    def _coroutine_function(
        self, fn: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        circuit = self._circuit

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            # The body of `acall` again: going through it would cost a second coroutine a call.
            generation = circuit.calm
            permit = None if generation else circuit.admit()
            try:
                result = await fn(*args, **kwargs)
            except BaseException as exc:
                self._raised(permit or Permit(circuit, generation), exc)
                raise
            if permit or circuit.calm != generation:
                self._judged(permit or Permit(circuit, generation), result)
            return result

        return guarded

    def _generator_function(
        self,
        fn: Callable[P, Generator[Any, Any, Any]],
        begin: Callable[[], Permit] | None = None,
    ) -> Callable[P, Generator[Any, Any, Any]]:
        begin = begin or self.acquire

        def guarded(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
            permit = begin()
            try:
                result = yield from fn(*args, **kwargs)
            except BaseException as exc:
                self._raised(permit, exc)
                raise
            permit.success()
            return result

        return guarded

    def _async_generator_function(
        self,
        fn: Callable[P, AsyncGenerator[Any, Any]],
        begin: Callable[[], Permit] | None = None,
    ) -> Callable[P, AsyncGenerator[Any, Any]]:
        begin = begin or self.acquire

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
            permit = begin()
            try:
                source = fn(*args, **kwargs)
                step = source.asend(None)
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        break
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await source.aclose()
                        raise
                    except BaseException as exc:
                        step = source.athrow(exc)
                    else:
                        step = source.asend(sent)
            except BaseException as exc:
                self._raised(permit, exc)
                raise
            permit.success()

        return guarded

    async def _awaited(self, permit: Permit, running: Awaitable[R]) -> R:
        try:
            result = await running
        except BaseException as exc:
            self._raised(permit, exc)
            raise
        self._judged(permit, result)
        return result

    def _returned(self, permit: Permit, result: Any) -> Any:
        if isinstance(result, CoroutineType):
            return self._awaited(permit, result)
        if isinstance(result, GeneratorType):
            return self._generator_function(lambda: result, lambda: permit)()
        if isinstance(result, AsyncGeneratorType):
            return self._async_generator_function(lambda: result, lambda: permit)()
        self._judged(permit, result)
        return result

    def _judged(self, permit: Permit, result: object) -> None:
        self._circuit.settle(permit, self._judge.result(result), None)

    def _raised(self, permit: Permit, exc: BaseException) -> None:
        self._circuit.settle(permit, self._judge.error(exc), exc)

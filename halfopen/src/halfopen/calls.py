"""How functions of each kind are called under guard.

The short ways are repeated in each, because a call between would cost as much as the breaker
itself. While `calm` holds, a call needs no permit on its way in, and on its way out only another
look. Until `refused_until` it is refused without asking further.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, TypeAlias

from halfopen.errors import CircuitOpen
from halfopen.permit import Permit
from halfopen.state import OPEN

if TYPE_CHECKING:
    from halfopen.circuit import Circuit

Begin: TypeAlias = Callable[[], Permit]

RUNS_LATER = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def function(circuit: Circuit, fn: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        generation = circuit.calm
        permit = None
        if not generation:
            until = circuit.refused_until
            if until and (wait := until - circuit.clock()) > 0:
                circuit.rejected += 1
                raise CircuitOpen(circuit.name, OPEN, wait, circuit.last_failure)
            permit = circuit.admit()
        try:
            result = fn(*args, **kwargs)
        except BaseException as exc:
            circuit.raised(permit or Permit(circuit, generation), exc)
            raise
        if permit or circuit.calm != generation or type(result) in RUNS_LATER:
            return returned(circuit, permit or Permit(circuit, generation), result)
        return result

    return guarded


def coroutine_function(
    circuit: Circuit, fn: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        generation = circuit.calm
        permit = None
        if not generation:
            until = circuit.refused_until
            if until and (wait := until - circuit.clock()) > 0:
                circuit.rejected += 1
                raise CircuitOpen(circuit.name, OPEN, wait, circuit.last_failure)
            permit = circuit.admit()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as exc:
            circuit.raised(permit or Permit(circuit, generation), exc)
            raise
        if permit or circuit.calm != generation:
            circuit.returned(permit or Permit(circuit, generation), result)
        return result

    return guarded


def generator_function(
    circuit: Circuit, fn: Callable[..., Generator[Any, Any, Any]], begin: Begin
) -> Callable[..., Generator[Any, Any, Any]]:
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        permit = begin()
        try:
            result = yield from fn(*args, **kwargs)
        except BaseException as exc:
            circuit.raised(permit, exc)
            raise
        permit.success()
        return result

    return guarded


def async_generator_function(
    circuit: Circuit, fn: Callable[..., AsyncGenerator[Any, Any]], begin: Begin
) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
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
                except BaseException as exc:  # noqa: BLE001 - thrown in by the consumer, passed on
                    step = source.athrow(exc)
                else:
                    step = source.asend(sent)
        except BaseException as exc:
            circuit.raised(permit, exc)
            raise
        permit.success()

    return guarded


def returned(circuit: Circuit, permit: Permit, result: Any) -> Any:
    """What a call gives its caller. Where the work is still to come, the permit goes with it."""
    if isinstance(result, CoroutineType):
        return _awaited(circuit, permit, result)
    if isinstance(result, GeneratorType):
        return generator_function(circuit, lambda: result, lambda: permit)()
    if isinstance(result, AsyncGeneratorType):
        return async_generator_function(circuit, lambda: result, lambda: permit)()
    circuit.returned(permit, result)
    return result


async def _awaited(circuit: Circuit, permit: Permit, running: Awaitable[Any]) -> Any:
    try:
        result = await running
    except BaseException as exc:
        circuit.raised(permit, exc)
        raise
    circuit.returned(permit, result)
    return result

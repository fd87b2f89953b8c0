from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from halfopen.verdicts import FAILURE, NEUTRAL, SUCCESS

if TYPE_CHECKING:
    from halfopen.circuit import Circuit


class Permit:
    """The right to make one call, and the duty to say how it went.

    Each verdict returns whether it counted: not if there was one before, nor if the circuit has
    changed its state since (the result is late), nor if the probe had lost its slot. `failure_on`
    and `ignore` are not asked: who settles by hand decides by hand.
    """

    __slots__ = ("__weakref__", "_circuit", "generation", "settled", "started")

    def __init__(self, circuit: Circuit, generation: int, started: float = 0.0) -> None:
        self._circuit = circuit
        self.generation = generation
        self.started = started
        self.settled = False

    def success(self) -> bool:
        return self._circuit.settle(self, SUCCESS)

    def failure(self, exc: BaseException | None = None) -> bool:
        return self._circuit.settle(self, FAILURE, exc)

    def ignore(self) -> bool:
        return self._circuit.settle(self, NEUTRAL)


class Probe(Permit):
    """A permit in the half-open state, which holds a slot. Abandoned, it gives the slot back."""

    __slots__ = ("number",)

    def __init__(self, circuit: Circuit, generation: int, started: float, number: int) -> None:
        super().__init__(circuit, generation, started)
        self.number = number

    def __del__(self) -> None:
        if not self.settled:
            self._circuit.given_back.append(self.number)


class Guard:
    """Acquires a permit on entry and settles it on exit, unless the block has done so.

    It serves one `with` or `async with`, whose ends may lie in different threads and contexts.
    """

    __slots__ = ("_circuit", "_permit")

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        if self._permit is not None:
            raise RuntimeError("a guard serves once: call guard() again")
        self._permit = self._circuit.admit()
        return self._permit

    def __exit__(
        self,
        _type: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        permit = self._permit
        if permit is None or permit.settled:
            return
        if exc is None:
            permit.success()
        else:
            self._circuit.raised(permit, exc)

    async def __aenter__(self) -> Permit:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)


class Isolation:
    """Keeps a breaker from letting any call in, until it is released or its `with` block ends.

    Calling it releases it, too. To release it again does nothing.
    """

    __slots__ = ("_circuit",)

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit

    def release(self) -> None:
        self._circuit.release(self)

    __call__ = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

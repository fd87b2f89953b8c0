from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from halfopen.judge import Judge, Outcome

if TYPE_CHECKING:
    from halfopen.circuit import Circuit


class Permit:
    """The right to make one call, and the duty to say once how it went.

    Each of the three verdicts returns whether it counted: not when one was given before, nor when
    the circuit has changed its state since (the result is late), nor when the probe had lost its
    slot. The verdict is the caller's own: `failure_on` and `ignore` are not asked.
    """

    __slots__ = ("__weakref__", "_circuit", "generation", "settled", "started")

    def __init__(self, circuit: Circuit, generation: int, started: float = 0.0) -> None:
        self._circuit = circuit
        self.generation = generation
        self.started = started
        self.settled = False

    def success(self) -> bool:
        return self._circuit.settle(self, Outcome.SUCCESS, None)

    def failure(self, exc: BaseException | None = None) -> bool:
        return self._circuit.settle(self, Outcome.FAILURE, exc)

    def ignore(self) -> bool:
        return self._circuit.settle(self, Outcome.NEUTRAL, None)


class Probe(Permit):
    """A permit of the half-open state, which holds one of its slots.

    Forgotten without a verdict, it gives the slot back when it is collected.
    """

    __slots__ = ("number",)

    def __init__(self, circuit: Circuit, generation: int, started: float, number: int) -> None:
        super().__init__(circuit, generation, started)
        self.number = number

    def __del__(self) -> None:
        if not self.settled:
            self._circuit.give_back(self)


class Guard:
    """Acquires a permit on entry; settles it on exit, unless the block did so by itself.

    One guard serves one `with` or `async with`. It may be left in another thread or context than it
    was entered in.
    """

    __slots__ = ("_circuit", "_judge", "_permit")

    def __init__(self, circuit: Circuit, judge: Judge) -> None:
        self._circuit = circuit
        self._judge = judge
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        if self._permit is not None:
            raise RuntimeError("a guard serves once: call guard() again")
        circuit = self._circuit
        generation = circuit.calm
        self._permit = permit = Permit(circuit, generation) if generation else circuit.admit()
        return permit

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        permit = self._permit
        assert permit is not None
        if permit.settled:
            return
        if exc is None:
            permit.success()
        else:
            self._circuit.settle(permit, self._judge.error(exc), exc)

    async def __aenter__(self) -> Permit:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halfopen.circuit import Circuit


class Isolation:
    """A hold on a breaker that lets no call through until `release`, or the end of its `with` block.

    Calling the handle releases it, too; releasing it again does nothing. With the last handle the
    circuit closes, with nothing counted.
    """

    __slots__ = ("_circuit",)

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        circuit.isolate(self)

    def release(self) -> None:
        self._circuit.release(self)

    __call__ = release

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

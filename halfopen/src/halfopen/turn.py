import os
import weakref
from typing import TypeAlias

_Token: TypeAlias = set[None]


class _Cell:
    __slots__ = ("following", "holder")

    def __init__(self) -> None:
        # Dictionaries with one key, because setdefault() decides between threads in one step.
        self.holder: dict[None, tuple[weakref.ref[_Token], int]] = {}
        self.following: dict[None, _Cell] = {}


class Turn:
    """At most one has the turn, and nobody waits for it: `for _ in turn.take(): ...`.

    The loop runs once, or, if somebody else has the turn, not at all. Only the loop refers to the
    token that it runs over, and when the token is gone, the turn is free. So the turn ends with the
    loop, however that ends: an exception from a signal handler or a fork does not leave it taken.
    """

    __slots__ = ("_cell",)

    def __init__(self) -> None:
        self._cell = _Cell()

    def take(self) -> _Token:
        cell, process = self._cell, os.getpid()
        while True:
            token = {None}
            try:
                mine = weakref.ref(token), process
                holder = cell.holder.setdefault(None, mine)
                if holder is mine:
                    return token
            except BaseException:  # pragma: no cover - out of signal handlers only
                del token  # the traceback would hold it
                raise
            other, its_process = holder
            if other() is not None and its_process == process:
                return set()
            # That loop has ended, or is in another process. All who find it agree on the next.
            self._cell = cell = cell.following.setdefault(None, _Cell())

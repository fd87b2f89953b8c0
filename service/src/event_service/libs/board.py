"""What the processes of a server show each other."""

import mmap
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

# The turn (odd while it is written), when it was written, and how long it is.
_HEAD = struct.Struct("=QdQ")
_TRIES = 50


class Post(NamedTuple):
    place: int
    age: float  # seconds
    text: bytes


class Board:
    """Memory that a process shares with those that it forks: a place for each, where it puts one
    text at a time and all may read it.

    No lock and no system call. Each process writes to its own place alone; a reader that meets a
    text half written reads again. Times are those of `clock`, which all of them share.
    """

    def __init__(
        self, places: int, *, size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`size`: bytes that a text may have. Room is taken where something is written."""
        self._places = places
        self._size = size
        self._clock = clock
        self._stride = _HEAD.size + size
        self._memory = memoryview(mmap.mmap(-1, places * self._stride))

    def put(self, place: int, text: bytes) -> bool:
        """Whether it found room; "" takes down what was there."""
        if place >= self._places or len(text) > self._size:
            return False
        at = place * self._stride
        turn, _, _ = _HEAD.unpack_from(self._memory, at)
        _HEAD.pack_into(self._memory, at, turn + 1, 0.0, 0)
        start = at + _HEAD.size
        self._memory[start : start + len(text)] = text
        _HEAD.pack_into(self._memory, at, turn + 2, self._clock(), len(text))
        return True

    def read(self) -> list[Post]:
        """What there is, in the order of the places."""
        found = (self._read(place) for place in range(self._places))
        return [post for post in found if post is not None]

    def _read(self, place: int) -> Post | None:
        at = place * self._stride
        for _ in range(_TRIES):
            turn, written_at, length = _HEAD.unpack_from(self._memory, at)
            if not length and turn % 2 == 0:
                return None
            start = at + _HEAD.size
            text = bytes(self._memory[start : start + length])
            if turn % 2 == 0 and _HEAD.unpack_from(self._memory, at)[0] == turn:
                return Post(place, max(0.0, self._clock() - written_at), text)
        return None

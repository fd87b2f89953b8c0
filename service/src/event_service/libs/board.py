"""Texts that the processes of a server publish to each other in shared memory."""

import mmap
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

# Sequence number (odd while writing), time of writing, and length.
_HEAD = struct.Struct("=QdQ")
_TRIES = 50


class Post(NamedTuple):
    place: int
    age: float  # seconds
    text: bytes


class Board:
    """Memory shared with forked children: each process publishes one text in its own place, and all
    can read every place.

    No lock and no system call: a process writes only to its own place, and a reader that catches a
    half-written text retries. Times are those of `clock`, which all processes share.
    """

    def __init__(
        self, places: int, *, size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`size`: maximum bytes of a text. Memory is used only once something is written."""
        self._places = places
        self._size = size
        self._clock = clock
        self._stride = _HEAD.size + size
        self._memory = memoryview(mmap.mmap(-1, places * self._stride))

    def put(self, place: int, text: bytes) -> bool:
        """Publish the text; False if it does not fit. "" removes the text."""
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
        """The published texts, in order of place."""
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

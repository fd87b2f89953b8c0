"""Counters in memory that a process writes and its sibling processes read."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import structlog

CELLS = 32_768
_CELL_BYTES = 8 * CELLS
_NAMES_BYTES = 768 * 1024
_PAGE_BYTES = _CELL_BYTES + _NAMES_BYTES
# The first two cells describe the page itself.
_PID, _CELLS_USED, _NAMES_USED, _FIRST_FREE = range(4)
# Counts that do not fit go here, all together; nothing shows them.
_SPARE = 64
# How often a reader retries while a page is being folded, which takes about as long as one read.
_TRIES = 100


class Row(NamedTuple):
    """A named run of cells; `values` are their numbers."""

    metric: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


class Page(NamedTuple):
    """The counts of one process, or, with `alive` false, the sum over all processes that have
    ended.
    """

    pid: int
    alive: bool
    rows: list[Row]


class _Name(msgspec.Struct, array_like=True):
    metric: str
    labels: tuple[str, ...]
    first: int
    size: int


_names = msgspec.json.Decoder(_Name)


class Cells:
    """A page of 64-bit floats. Counting is `cells.values[i] += 1` and nothing more.

    With `pages`, several processes share them without a lock or a system call: each process writes
    only to its own page, from one thread.
    """

    def __init__(self, pages: "Pages | None" = None, place: int = 0) -> None:
        """`place` is this process's page among `pages`. If `pages` has no such place, the process
        counts privately and the others do not see it.
        """
        self._pages = pages
        if pages is not None and not pages.has(place):
            structlog.get_logger().warning("no page is left to count in", place=place)
            self._pages = pages = None
        self._memory = memoryview(mmap.mmap(-1, _PAGE_BYTES)) if pages is None else pages.at(place)
        self.values = self._memory[:_CELL_BYTES].cast("d")
        self._full = False
        self.values[_PID] = os.getpid()
        self.values[_CELLS_USED] = _FIRST_FREE

    def claim(self, metric: str, labels: tuple[str, ...] = (), size: int = 1) -> int:
        """The index of the first of `size` new cells, all of them 0."""
        first = int(self.values[_CELLS_USED])
        line = msgspec.json.encode(_Name(metric, labels, first, size)) + b"\n"
        start = _CELL_BYTES + int(self.values[_NAMES_USED])
        if first + size > CELLS - _SPARE or start + len(line) > _PAGE_BYTES:
            if not self._full:
                self._full = True
                structlog.get_logger().error("no room is left to count in", metric=metric)
            return CELLS - size
        self._memory[start : start + len(line)] = line
        # Written last, so that a reader never sees half a name.
        self.values[_CELLS_USED] += size
        self.values[_NAMES_USED] += len(line)
        return first

    def pages(self) -> list[Page]:
        """The pages of all sharing processes, plus one page with the totals of those that ended."""
        return [_page(self._memory, alive=True)] if self._pages is None else self._pages.read()


class Pages:
    """Memory shared with forked children; `places` is how many of them get a page.

    It is not a file: no temporary-folder cleaner, full disk or deleted folder can harm it, and it
    ends with the last process. A page takes memory only once something is counted there.

    The parent gives each child a place that no living process has, and calls `fold` when the child
    has ended: its totals are kept, and the place is free again.
    """

    def __init__(self, places: int, *, lasting: Callable[[str], bool]) -> None:
        """`lasting` says whether a metric's count is kept after its process has ended."""
        self._places = places
        self._lasting = lasting
        self._memory = memoryview(mmap.mmap(-1, (places + 1) * _PAGE_BYTES + mmap.PAGESIZE))
        head = self._memory[-mmap.PAGESIZE :].cast("d")
        # Odd while a page is being folded.
        self._turn = head[0:1]
        self.word = head[1:2]
        """A number for all processes, at first 0; each may write it."""
        self._ended = Cells(self, places)
        self._rows: dict[tuple[str, tuple[str, ...]], int] = {}

    def has(self, place: int) -> bool:
        """Whether this place exists; the last page holds the totals of processes that ended."""
        return place <= self._places

    def at(self, place: int) -> memoryview:
        return self._memory[place * _PAGE_BYTES : (place + 1) * _PAGE_BYTES]

    def fold(self, place: int) -> None:
        """Add the totals of the ended process at `place` to the page of ended processes. For the
        parent only.
        """
        if place >= self._places:
            return
        memory = self.at(place)
        rows = _page(memory, alive=False).rows
        self._turn[0] += 1
        for row in rows:
            if self._lasting(row.metric):
                key = (row.metric, row.labels)
                if key not in self._rows:
                    self._rows[key] = self._ended.claim(*key, len(row.values))
                for cell, value in enumerate(row.values, self._rows[key]):
                    self._ended.values[cell] += value
        used = memory[:_CELL_BYTES].cast("d")
        cells = int(used[_CELLS_USED])
        used[_NAMES_USED] = used[_PID] = 0
        memory[: 8 * cells] = bytes(8 * cells)
        self._turn[0] += 1

    def read(self) -> list[Page]:
        for _ in range(_TRIES):
            turn = self._turn[0]
            found = list(self._read())
            if turn % 2 == 0 and self._turn[0] == turn:
                break
        return found

    def _read(self) -> Iterator[Page]:
        for place in range(self._places):
            page = _page(self.at(place), alive=True)
            if page.pid:
                yield page
        yield _page(self.at(self._places), alive=False)


def _page(memory: memoryview, *, alive: bool) -> Page:
    # Read the names' length before the cells: a named row then has its cells.
    names_used = int(_floats(memory, _FIRST_FREE)[_NAMES_USED])
    names = bytes(memory[_CELL_BYTES : _CELL_BYTES + names_used])
    values = _floats(memory, max(int(_floats(memory, _FIRST_FREE)[_CELLS_USED]), _FIRST_FREE))
    rows = [
        Row(name.metric, name.labels, values[name.first : name.first + name.size])
        for name in map(_names.decode, names.splitlines())
    ]
    return Page(int(values[_PID]), alive, rows)


def _floats(memory: memoryview, count: int) -> tuple[float, ...]:
    return struct.unpack_from(f"{count}d", memory)

"""Numbers that a process counts in, and that its sibling processes can read."""

import fcntl
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

CELLS = 65_536
_CELL_BYTES = 8 * CELLS
_NAMES_BYTES = 1024 * 1024
_SUFFIX = ".cells"
# The first cells are about the page itself.
_PID, _CELLS_USED, _NAMES_USED, _FIRST_FREE = range(4)


class Row(NamedTuple):
    """A named run of cells: `values` holds what each of them stood at."""

    metric: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


class Page(NamedTuple):
    """What one process has counted. A page outlives its process, so that totals never fall."""

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
    """A page of 64-bit floats. `cells.values[i] += 1` is all that counting costs.

    With a `folder` the page is a file in it, mapped into memory: no lock, no system call, and
    `pages` reads the files of all processes that were given the same folder. Each process
    writes to its own page alone, from one thread. The pages are sparse: they take the room of
    what is used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory = _anonymous() if folder is None else _mapped(folder)
        self.values = memoryview(self._memory)[:_CELL_BYTES].cast("d")
        self.values[_PID] = os.getpid()
        self.values[_CELLS_USED] = _FIRST_FREE

    def claim(self, metric: str, labels: tuple[str, ...] = (), size: int = 1) -> int:
        """The index of the first of `size` new cells, all of them 0."""
        first = int(self.values[_CELLS_USED])
        line = msgspec.json.encode(_Name(metric, labels, first, size)) + b"\n"
        start = _CELL_BYTES + int(self.values[_NAMES_USED])
        self._memory[start : start + len(line)] = line
        # Last, so that a reader never meets half a name.
        self.values[_CELLS_USED] += size
        self.values[_NAMES_USED] += len(line)
        return first

    def pages(self) -> Iterator[Page]:
        """The pages of all processes that share the folder, those that have ended included."""
        if self._folder is None:
            yield _page(self._memory, alive=True)
            return
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory,
            ):
                yield _page(memory, alive=_is_locked(file.fileno()))


def _anonymous() -> mmap.mmap:
    return mmap.mmap(-1, _CELL_BYTES + _NAMES_BYTES)


def _mapped(folder: Path) -> mmap.mmap:
    descriptor, _ = tempfile.mkstemp(suffix=_SUFFIX, dir=folder)
    try:
        # The mapping keeps the lock, whatever way the process ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, _CELL_BYTES + _NAMES_BYTES)
        return mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _page(memory: mmap.mmap, *, alive: bool) -> Page:
    # The names' length is read before the cells: a row that is named has its cells.
    names_used = int(_floats(memory, _FIRST_FREE)[_NAMES_USED])
    names = memory[_CELL_BYTES : _CELL_BYTES + names_used]
    values = _floats(memory, int(_floats(memory, _FIRST_FREE)[_CELLS_USED]))
    rows = [
        Row(name.metric, name.labels, values[name.first : name.first + name.size])
        for name in map(_names.decode, names.splitlines())
    ]
    return Page(int(values[_PID]), alive, rows)


def _floats(memory: mmap.mmap, count: int) -> tuple[float, ...]:
    return struct.unpack_from(f"{count}d", memory)

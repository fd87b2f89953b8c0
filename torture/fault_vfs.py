"""A SQLite VFS that remembers what a power cut would leave, and fails when it is told to.

SQLite works on ordinary files. Beside them the disk keeps, for each file, what is durable and what
was written since its last sync. A power cut may leave any of the latter: all, nothing, or some of
its sectors in any order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import apsw

SECTOR = 512
Operation = Literal["write", "sync", "truncate"]
# What SQLite is told for a failure, by its name in errno.
CODES: dict[tuple[str, str], int] = {
    ("EIO", "write"): apsw.SQLITE_IOERR_WRITE,
    ("EIO", "sync"): apsw.SQLITE_IOERR_FSYNC,
    ("EIO", "truncate"): apsw.SQLITE_IOERR_TRUNCATE,
    ("ENOSPC", "write"): apsw.SQLITE_FULL,
    ("ENOSPC", "sync"): apsw.SQLITE_IOERR_FSYNC,
    ("ENOSPC", "truncate"): apsw.SQLITE_IOERR_TRUNCATE,
}


class Change(NamedTuple):
    """Bytes written at a place, or with no bytes, a new size."""

    at: int
    data: bytes | None


class Stored:
    """What a disk has of one file."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.pending: list[Change] = []

    def sync(self) -> None:
        self.durable = _applied(self.durable, self.pending)
        self.pending = []

    def lose(self) -> None:
        """A failed sync: the kernel calls the pages clean, though they never got to the disk."""
        self.pending = []


class Disk:
    """The files of one folder, as a power cut would leave them.

    `before` is called before each operation with its name; what it raises is what SQLite meets.
    After a failed sync the file reads as before, and what was to be synced is lost to the disk:
    that is what Linux does.
    """

    def __init__(self, *, simulated: bool = True) -> None:
        """Where it is not `simulated`, real syncs are made and nothing is remembered."""
        self.simulated = simulated
        self.files: dict[Path, Stored] = {}
        # Deleted, but their folder is not synced since: a power cut may bring them back.
        self.ghosts: dict[Path, Stored] = {}
        self.before: Callable[[Operation, Path], None] = lambda _operation, _path: None
        self.syncs = 0

    def stored(self, path: Path) -> Stored:
        if path not in self.files:
            self.ghosts.pop(path, None)
            self.files[path] = Stored(path.read_bytes() if path.exists() else b"")
        return self.files[path]

    def cut(self, chance: random.Random, *, keep: Literal["nothing", "all", "some"]) -> Image:
        """The files after a power cut now, of which nothing else is affected."""
        image = {}
        ghosts = {
            path: stored
            for path, stored in self.ghosts.items()
            if keep == "nothing" or (keep == "some" and chance.random() < 0.5)
        }
        for path, stored in {**ghosts, **self.files}.items():
            pending = stored.pending
            if keep == "nothing":
                pending = []
            elif keep == "some":
                sectors = [part for change in pending for part in _sectors(change)]
                pending = [part for part in sectors if chance.random() < 0.5]
            image[path.name] = bytes(_applied(stored.durable, pending))
        return image


Image = dict[str, bytes]


class FaultVFS(apsw.VFS):
    """Register it by making it; it is there until `unregister`."""

    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return FaultFile(name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802
        super().xDelete(filename, syncdir)
        stored = self._disk.files.pop(Path(filename), None)
        if syncdir:
            self._disk.ghosts.clear()
        elif stored is not None:
            self._disk.ghosts[Path(filename)] = stored


class FaultFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: Disk) -> None:
        super().__init__("", name, flags)
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._path = Path(text or "")
        self._disk = disk
        self._stored = disk.stored(self._path)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.before("write", self._path)
        super().xWrite(data, offset)
        if self._disk.simulated:
            self._stored.pending.append(Change(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.before("truncate", self._path)
        super().xTruncate(newsize)
        if self._disk.simulated:
            self._stored.pending.append(Change(newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        try:
            self._disk.before("sync", self._path)
        except apsw.Error:
            self._stored.lose()
            raise
        self._disk.syncs += 1
        if self._disk.simulated:
            self._stored.sync()
        else:
            super().xSync(flags)


def failing(errno: str, operation: Operation) -> Exception:
    """The error with which an operation fails, as SQLite understands it."""
    return apsw.exception_for(CODES[errno, operation])


def restore(image: Image, folder: Path) -> None:
    """Put what a power cut left into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in image.items():
        # The shared memory is gone with the machine.
        if not name.endswith("-shm"):
            (folder / name).write_bytes(content)


def _applied(content: bytearray, changes: list[Change]) -> bytearray:
    result = bytearray(content)
    for at, data in changes:
        if data is None:
            del result[at:]
            continue
        if len(result) < at:
            result.extend(bytes(at - len(result)))
        result[at : at + len(data)] = data
    return result


def _sectors(change: Change) -> list[Change]:
    """The parts of a write that reach the disk or do not, each as a whole."""
    at, data = change
    if data is None:
        return [change]
    parts, start = [], 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (at + start) % SECTOR)
        parts.append(Change(at + start, data[start:end]))
        start = end
    return parts

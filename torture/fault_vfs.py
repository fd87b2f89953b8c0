"""An SQLite VFS that simulates power cuts and disk errors.

SQLite works on ordinary files. In addition the disk records, for each file, its durable content and
the writes since its last sync. After a power cut, all, none or some sectors of those writes remain,
in any order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import apsw

SECTOR = 512
Operation = Literal["write", "sync", "truncate"]
# The SQLite error for each failing operation, by its name in errno.
CODES: dict[tuple[str, str], int] = {
    ("EIO", "write"): apsw.SQLITE_IOERR_WRITE,
    ("EIO", "sync"): apsw.SQLITE_IOERR_FSYNC,
    ("EIO", "truncate"): apsw.SQLITE_IOERR_TRUNCATE,
    ("ENOSPC", "write"): apsw.SQLITE_FULL,
    ("ENOSPC", "sync"): apsw.SQLITE_IOERR_FSYNC,
    ("ENOSPC", "truncate"): apsw.SQLITE_IOERR_TRUNCATE,
}


class Change(NamedTuple):
    """Bytes written at an offset; without bytes, a new size."""

    at: int
    data: bytes | None


class Stored:
    """One file's content on the disk."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.pending: list[Change] = []

    def sync(self) -> None:
        self.durable = _applied(self.durable, self.pending)
        self.pending = []

    def lose(self) -> None:
        """A failed sync: the kernel marks the pages clean although they are not on the disk."""
        self.pending = []


class Disk:
    """The files of one folder, as a power cut would leave them.

    `before` is called with the name of each operation; if it raises, SQLite gets that error. After
    a failed sync the file can be read as before, but the unsynced data is lost, as on Linux.
    """

    def __init__(self, *, simulated: bool = True) -> None:
        """Without `simulated`, syncs are real and nothing is recorded."""
        self.simulated = simulated
        self.files: dict[Path, Stored] = {}
        # Deleted files whose folder was not synced since: a power cut may restore them.
        self.ghosts: dict[Path, Stored] = {}
        self.before: Callable[[Operation, Path], None] = lambda _operation, _path: None
        self.syncs = 0

    def stored(self, path: Path) -> Stored:
        if path not in self.files:
            self.ghosts.pop(path, None)
            self.files[path] = Stored(path.read_bytes() if path.exists() else b"")
        return self.files[path]

    def cut(self, chance: random.Random, *, keep: Literal["nothing", "all", "some"]) -> Image:
        """The files as a power cut now would leave them; the disk itself does not change."""
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
    """Registered from its creation until `unregister`."""

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
    """The SQLite error for a failing operation."""
    return apsw.exception_for(CODES[errno, operation])


def restore(image: Image, folder: Path) -> None:
    """Write the files that a power cut left to an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in image.items():
        # Shared memory does not survive a power cut.
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
    """The parts of a write; each reaches the disk completely or not at all."""
    at, data = change
    if data is None:
        return [change]
    parts, start = [], 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (at + start) % SECTOR)
        parts.append(Change(at + start, data[start:end]))
        start = end
    return parts

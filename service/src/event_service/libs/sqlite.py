"""Opens SQLite files for data that must survive a power cut."""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import apsw

P = ParamSpec("P")
T = TypeVar("T")

# 3.51.3 fixes a race in WAL checkpoints that could corrupt a database.
OLDEST_LIBRARY = (3, 51, 3)
BUSY_TIMEOUT_MS = 5_000
# File locks or shared memory on these do not work across machines.
NETWORK_FILE_SYSTEMS = re.compile(
    r"(fuse\.)?(9p|afs|beegfs|ceph|cifs|coda|davfs2?|gcsfuse|glusterfs|gpfs|lustre|ncpfs|nfs4?|"
    r"orangefs|pvfs2|rclone|s3fs|smb3|smbfs|sshfs|vboxsf)"
)
MOUNTS = Path("/proc/self/mountinfo")


class SqliteUnusable(Exception):
    """The file cannot be used safely; the text says why and is safe to show."""


def path_of(url: str) -> Path:
    """The path in a URL: `sqlite:///x` is relative, `sqlite:////x` absolute.

    Raises ValueError for any other URL.
    """
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be sqlite:///relative/path or sqlite:////absolute/path")
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError("must name a file: sqlite:///relative/path or sqlite:////absolute/path")
    return Path(path)


def connect(
    path: Path, *, synchronous: Literal["FULL", "EXTRA"] = "EXTRA", vfs: str | None = None
) -> apsw.Connection:
    """A connection in WAL mode, with the settings for durable commits applied and read back.

    Creates the file, in a folder that must exist. Use a connection from one thread at a time, and
    `BEGIN IMMEDIATE` for writes: it waits up to 5 s for other writers, then raises apsw.BusyError.
    `vfs` names the SQLite VFS to use, for tests of failing disks.

    Raises SqliteUnusable for an outdated library, a network file system, a missing or read-only
    folder, and a file that is not a database.
    """
    refuse_old_library()
    refuse_network_file_system(path)
    created = not path.exists()
    try:
        connection = apsw.Connection(str(path), vfs=vfs)
        try:
            _configure(connection, synchronous)
        except BaseException:
            connection.close()
            raise
    except apsw.Error as error:
        raise SqliteUnusable(f"{path} cannot be opened: {error}") from error
    if created:
        sync_folder(path.parent)
    return connection


def refuse_old_library() -> None:
    """Raise SqliteUnusable if the loaded SQLite has the known WAL fault."""
    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < OLDEST_LIBRARY:
        oldest = ".".join(map(str, OLDEST_LIBRARY))
        raise SqliteUnusable(f"SQLite {version} is too old: {oldest} or newer is needed")


def refuse_network_file_system(path: Path, mounts: Path = MOUNTS) -> None:
    """Raise SqliteUnusable if the path is on one, as far as the system tells (Linux does)."""
    kind = file_system(path, mounts)
    if NETWORK_FILE_SYSTEMS.fullmatch(kind):
        raise SqliteUnusable(f"{path} is on a network file system ({kind}); use a local disk")


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system that holds the path; "" if the system does not tell."""
    folder = path.absolute().parent
    found, longest = "", -1
    with suppress(OSError):
        folder = folder.resolve()
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            # 36 35 98:0 /root /mount/point options optional… - type source options
            left, _, right = line.partition(" - ")
            point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), left.split(" ")[4])
            # Later mounts at the same point hide earlier ones.
            if folder.is_relative_to(point) and len(Path(point).parts) >= longest:
                found, longest = right.split(" ")[0], len(Path(point).parts)
    return found


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable, as fsync does for a file's content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _configure(connection: apsw.Connection, synchronous: str) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # Before a new file is switched to WAL: if a power cut restored the journal of that change, the
    # whole log would be lost.
    connection.pragma("synchronous", "EXTRA")
    wanted: dict[str, Any] = {
        "journal_mode": "wal",
        "synchronous": {"FULL": 2, "EXTRA": 3}[synchronous],
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "mmap_size": 0,
        "trusted_schema": 0,
        "foreign_keys": 1,
    }
    for name, value in wanted.items():
        connection.pragma(name, value)
        found = connection.pragma(name)
        # A VFS without memory mapping reports no size.
        if found != value and not (name == "mmap_size" and found is None):
            raise SqliteUnusable(f"SQLite says {name}={found} where {value} was set")


class SqliteThread:
    """One connection with its own thread.

    `run` may be called from any task of one event loop; calls run one after another. A call that
    is cancelled while it runs still runs to its end, so no transaction is interrupted.
    """

    def __init__(self, open_connection: Callable[[], apsw.Connection]) -> None:
        self._open = open_connection
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: apsw.Connection | None = None

    async def run(
        self,
        work: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work(connection, …)` in the thread; opens the connection if there is none.

        Raises what `work` and `open_connection` raise.
        """

        def call() -> T:
            if self._connection is None:
                self._connection = self._open()
            return work(self._connection, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def close(self) -> None:
        """Close the connection; the next call opens another. Raises apsw.Error."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)

    async def stop(self) -> None:
        """Close the connection and end the thread."""
        try:
            await self.close()
        finally:
            self._executor.shutdown(wait=False)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

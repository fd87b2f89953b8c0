import fcntl
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Bytes that may be queued; as many again may be in the thread's hands.
LIMIT = 2 * 1024 * 1024
# At close: seconds to wait without any progress, and in all.
STUCK, PATIENCE = 0.3, 2.0


class LineWriter:
    """Writes whole lines to a file, pipe or terminal without blocking the caller.

    A thread does the writing. While nobody reads the pipe, or the disk is full, up to `limit` bytes
    are queued and the rest is dropped; once writing works again, one line says how many lines were
    lost. Thread-safe.

    Several processes may share the descriptor: `lock` is a file descriptor that all of them hold;
    locking it keeps their lines apart.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        lost: Callable[[int], bytes],
        lock: int | None = None,
        limit: int = LIMIT,
        idle: float = 10.0,
    ) -> None:
        """`lost` makes the line (without its end) that says how many lines were lost. After `idle`
        seconds without a line the thread ends; the next line starts another.
        """
        self._descriptor = descriptor
        self._lost = lost
        self._lock = lock
        self._limit = limit
        self._idle = idle
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._blocks: list[bytes] = []
        self._size = 0
        self._closed = False
        self._dropped = 0  # in all
        self._to_tell = 0
        self._torn = False  # whether the last byte written was not the end of a line
        self._progress = 0  # bytes

    @property
    def dropped(self) -> int:
        """Number of lines lost so far."""
        return self._dropped

    def write(self, block: bytes) -> None:
        """Queue `block` (one or more lines, each with its end) for writing."""
        with self._changed:
            if self._size + len(block) > self._limit:
                self._drop(block.count(b"\n"))
                return
            self._blocks.append(block)
            self._size += len(block)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="log")
                self._thread.start()
            else:
                self._changed.notify_all()

    def flush(self) -> None:
        """Does nothing; for callers that expect a file. Lines are written without it."""

    def close(self) -> None:
        """Wait until everything is written, unless nobody reads it. Later lines are still written
        while the process lives.
        """
        stuck, left = STUCK, PATIENCE
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._thread is not None and stuck > 0 and left > 0:
                before = self._progress
                self._changed.wait(0.02)
                left -= 0.02
                stuck = STUCK if self._progress != before else stuck - 0.02

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        self._to_tell += lines

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._blocks and not self._closed:
                    self._changed.wait(self._idle)
                if not self._blocks:
                    self._thread = None
                    self._changed.notify_all()
                    return
                data = b"".join(self._blocks)
                self._blocks, self._size = [], 0
                told, self._to_tell = self._to_tell, 0
            if told:
                # They were dropped after what was queued.
                data += self._lost(told) + b"\n"
            left = self._put(data)
            if left:
                with self._changed:
                    self._drop(left.count(b"\n"))
                    if told:
                        self._dropped -= 1
                        self._to_tell += told - 1

    def _put(self, data: bytes) -> bytes:
        """Write the bytes; returns what could not be written."""
        if self._torn:
            data = b"\n" + data
        left = memoryview(data)
        with self._alone():
            while left:
                try:
                    count = os.write(self._descriptor, left)
                except BlockingIOError:
                    select.select([], [self._descriptor], [])
                    continue
                except OSError:
                    break
                self._torn = data[len(data) - len(left) + count - 1] != ord("\n")
                left = left[count:]
                with self._changed:
                    self._progress += count
        return bytes(left)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

"""Child processes on one core each: started, watched and stopped by id."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

# Bytes: seconds of a busy contender's log, as much as an ordinary user may ask for.
LOG_PIPE = 1024 * 1024


def allow_many_files() -> None:
    """Raise the limit on open files for all children: thousands of connections are held at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A command, its children included, pinned to one core.

    Everything it prints is read at once, so that no contender waits for its own log; how many
    lines there were is in `lines`, the last of them in `last_words`.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        core: int,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ):
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.lines = 0
        self.last_words = b""
        self._child = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            env={**inherited, **(environment or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pipesize=LOG_PIPE,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._child.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> int:
        """Bytes: each page of the tree once, a page shared with others in equal parts (PSS)."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def suspend(self, seconds: float) -> None:
        """Let none of it run for so long."""
        tree = self.tree()
        for process in tree:
            process.suspend()
        try:
            time.sleep(seconds)
        finally:
            for process in tree:
                process.resume()

    def stop(self) -> None:
        """Ask the process to end, then end whatever of its group is left."""
        if self.alive:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._reader.join(timeout=5)

    def _read(self) -> None:
        with self._child.stdout as output:
            while content := os.read(output.fileno(), 65536):
                self.lines += content.count(b"\n")
                self.last_words = (self.last_words + content)[-2000:]

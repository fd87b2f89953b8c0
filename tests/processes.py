"""Starts the installed commands as a user would, on free ports, and stops what it started."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

import psutil

BIN = Path(sys.executable).parent
START_TIMEOUT = 30.0


class Process:
    """A program under test, with everything that it has printed so far."""

    def __init__(self, *command: str, **environ: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")}
        self._popen = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env={**inherited, "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float = 15.0) -> int:
        """The exit code, once all output has been read."""
        with self._popen:
            code = self._popen.wait(timeout)
            self._reader.join(timeout)
        return code

    def wait_for(self, url: str) -> None:
        """Until the URL answers at all."""
        give_up = time.monotonic() + START_TIMEOUT
        while self.running and time.monotonic() < give_up:
            try:
                with urllib.request.urlopen(url, timeout=1):
                    return
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        raise AssertionError(f"nothing answers at {url}; the program said:\n{self.output}")

    def wait_for_output(self, text: str) -> None:
        give_up = time.monotonic() + START_TIMEOUT
        while text not in self.output:
            assert self.running, f"the program ended; it said:\n{self.output}"
            assert time.monotonic() < give_up, f"the program only said:\n{self.output}"
            time.sleep(0.02)

    def pids(self) -> list[int]:
        """The process ids of the program and its children."""
        program = psutil.Process(self._popen.pid)
        return [program.pid, *(child.pid for child in program.children(recursive=True))]

    def child(self, name: str) -> int:
        """The process id of the child whose command line holds the name."""
        children = psutil.Process(self._popen.pid).children()
        (child,) = [each for each in children if name in " ".join(each.cmdline())]
        pid: int = child.pid
        return pid

    def stop(self) -> None:
        if self.running:
            self.send(signal.SIGTERM)
            try:
                self._popen.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._popen.pid, signal.SIGKILL)
        self.wait()


@contextmanager
def mock_upstream(*options: str) -> Iterator[str]:
    """A mock upstream; yields its address."""
    port = free_port()
    process = Process("mock-upstream", "--port", str(port), *options)
    try:
        process.wait_for(f"http://127.0.0.1:{port}/getUsers")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


@contextmanager
def event_service(upstream: str, **settings: str) -> Iterator[tuple[str, Process]]:
    """The service in front of `upstream`; yields its address and the process."""
    port = free_port()
    environ = {
        "EVENT_SERVICE_ENV": "testing",
        "EVENT_SERVICE_PORT": str(port),
        "EVENT_SERVICE_UPSTREAM_URL": upstream,
        **{f"EVENT_SERVICE_{name}": value for name, value in settings.items()},
    }
    process = Process("event-service", "serve", **environ)
    try:
        process.wait_for(f"http://127.0.0.1:{port}/livez")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.stop()


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Any other program, whose output nobody reads."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def free_port() -> int:
    """Not one of those for outgoing connections: any of them may take it before the server does."""
    while True:
        port = SystemRandom().randint(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port

"""Keeps worker processes running: starts, replaces and ends them, and handles signals.

It is one loop in one thread that waits for the next thing to happen, so nothing delays a signal,
not even a replacement in progress.
"""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Protocol

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNALS = frozenset({*STOP_SIGNALS, signal.SIGHUP})
# Ends a worker that does not serve yet.
DROP = signal.SIGUSR1
# A worker that ends by itself within so many seconds counts as failed.
SHORT_LIFE = 5.0
# After so many failed workers in a row, with no other worker left, the server ends.
MOST_SHORT_LIVES = 5
FIRST_DELAY, LONGEST_DELAY = 0.1, 1.0
# Longer timeouts are not accepted by select() and similar calls.
LONGEST_WAIT = 3600.0


class Ask(StrEnum):
    """A request from the supervisor to a worker; a closed connection means STOP."""

    LEAVE = "leave"
    """Another worker has taken this one's place."""
    STOP = "stop"
    """The whole server ends."""


class Link:
    """A worker's end of its connection to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """A descriptor that is readable when there is a request."""
        return self._connection.fileno()

    def serving(self) -> None:
        """Report that this worker serves now."""
        with suppress(OSError):
            self._connection.sendall(b"serving")

    def asked(self) -> Ask:
        """The request; STOP if the supervisor has ended. Blocks until there is one."""
        try:
            found = self._connection.recv(64)
        except ConnectionError:
            found = b""
        return Ask.LEAVE if found == Ask.LEAVE.encode() else Ask.STOP


# Called in a new process with the worker's number, from 1, and its place, from 0. No other living
# process of the supervisor has the same place. SIGTERM is blocked until the worker unblocks it.
# Before a worker reports that it serves, it must handle SIGTERM and DROP like Ask.STOP; until it
# does, DROP ends it. SIGINT and SIGHUP are ignored, because a terminal sends them to all processes
# and the supervisor handles them.
Work = Callable[[int, int, Link], None]


class Events(Protocol):
    """Callbacks about workers, by number."""

    def ended(self, worker: int, code: int) -> None:
        """The worker ended by itself; a negative `code` is the signal that killed it."""

    def killed(self, worker: int) -> None:
        """The worker was killed because it did not end in time."""

    def not_replaced(self, worker: int) -> None:
        """Its replacement did not start; it continues, and the reload ends."""

    def given_up(self) -> None:
        """No worker is left, and new ones fail."""

    def may_be_dropped(self, worker: int) -> bool:
        """Whether a worker that does not serve yet may be ended at once when all are to end."""

    def gone(self, place: int) -> None:
        """The process in this place has ended, for whatever reason."""

    def stopping(self) -> None:
        """All workers were asked to end. Resources that only they need can be closed."""


class _Worker:
    def __init__(
        self, number: int, place: int, process: BaseProcess, connection: socket.socket
    ) -> None:
        self.number = number
        self.place = place
        self.process = process
        self.connection = connection
        self.serving = False
        self.started = time.monotonic()
        # When to kill it; set once it was asked to end.
        self.until: float | None = None

    def ask(self, what: Ask, *, patience: float) -> None:
        if self.until is None:
            self.until = time.monotonic() + patience
        with suppress(OSError):
            self.connection.sendall(what.encode())

    def drop(self) -> None:
        """End a worker that does not serve yet. If it serves by now, this means Ask.STOP."""
        if self.process.pid is not None:
            os.kill(self.process.pid, DROP)


class Supervisor:
    """Runs `work` in `count` processes until SIGINT or SIGTERM; SIGHUP replaces each of them.

    The process should exit when `run` returns; from then on these signals are blocked.

    A worker that ends by itself is replaced at once, or after a growing delay if that happens
    repeatedly. `patience`: seconds that a worker may take to end after it was asked to. Workers end
    when the supervisor does, for whatever reason. Use from the main thread.
    """

    def __init__(self, work: Work, *, count: int, patience: float, events: Events) -> None:
        self._work = work
        self._patience = patience
        self._events = events
        self._count = count
        # Workers and starting replacements, by number; workers that were asked to end.
        self._workers: dict[int, _Worker] = {}
        self._successors: dict[int, _Worker] = {}
        self._leaving: list[_Worker] = []
        # Numbers of the workers that SIGHUP has yet to replace, one after the other.
        self._to_replace: list[int] = []
        # By number: when to start a worker again, and its failures in a row.
        self._due: dict[int, float] = {}
        self._short_lives: dict[int, int] = {}
        self._ever_served = False
        self._stopping = self._told = False
        self._code = 0

    def run(self) -> int:
        """Run until all workers have ended. Returns the exit code: 0 after a signal, else 1."""
        with self._hearing() as signals:
            for number in range(1, self._count + 1):
                if not self._stopping:
                    self._workers[number] = self._start(number)
            while not (self._stopping and not self._all()):
                self._wait(signals)
                self._bury()
                self._kill_late()
                if not self._stopping:
                    self._start_due()
                    self._replace_next()
        return self._code

    @contextmanager
    def _hearing(self) -> Iterator[int]:
        """Handle signals; yields a descriptor that is readable when one has arrived."""
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop_signal)
        signal.signal(signal.SIGHUP, self._replace_signal)
        try:
            yield reader
        finally:
            # Everything has ended; a late signal must not change how the process exits.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            signal.set_wakeup_fd(wakeup)
            os.close(reader)
            os.close(writer)

    def _stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _replace_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._to_replace = list(range(1, self._count + 1))

    def _all(self) -> list[_Worker]:
        return [*self._workers.values(), *self._successors.values(), *self._leaving]

    def _start(self, number: int) -> _Worker:
        taken = {each.place for each in self._all()}
        place = next(place for place in count() if place not in taken)
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("fork").Process(
            target=self._in_worker, args=(number, place, ours, theirs), name=f"worker-{number}"
        )
        # Until the child has its own handlers, a signal would run ours in it, and get lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        return _Worker(number, place, process, ours)

    def _in_worker(
        self, number: int, place: int, ours: socket.socket, theirs: socket.socket
    ) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(DROP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGTERM})
        # Only the supervisor keeps its ends, so they close when it ends.
        ours.close()
        for each in self._all():
            each.connection.close()
        self._work(number, place, Link(theirs))

    def _wait(self, signals: int) -> None:
        if self._stopping and not self._told:
            self._stop()
        timeout = LONGEST_WAIT
        now = time.monotonic()
        moments = [each.until for each in self._all() if each.until is not None]
        for moment in (*moments, *self._due.values()):
            timeout = min(timeout, max(0, moment - now))
        workers = self._all()
        starting = {each.connection: each for each in workers if not each.serving}
        sentinels = [each.process.sentinel for each in workers]
        for ready in wait([signals, *starting, *sentinels], timeout):
            if ready == signals:
                with suppress(BlockingIOError):
                    os.read(signals, 512)
            elif isinstance(ready, socket.socket):
                self._heard(starting[ready])

    def _heard(self, worker: _Worker) -> None:
        try:
            serving = bool(worker.connection.recv(64))
        except OSError:
            serving = False
        if not serving:
            # The worker is ending; its sentinel reports that.
            return
        worker.serving = self._ever_served = True
        if self._successors.get(worker.number) is worker:
            del self._successors[worker.number]
            old = self._workers.pop(worker.number, None)
            self._workers[worker.number] = worker
            if old is not None:
                self._leaving.append(old)
                old.ask(Ask.LEAVE, patience=self._patience)

    def _bury(self) -> None:
        for worker in self._all():
            if worker.process.is_alive():
                continue
            worker.process.join()
            worker.connection.close()
            code = worker.process.exitcode or 0
            if worker in self._leaving:
                self._leaving.remove(worker)
            elif self._successors.get(worker.number) is worker:
                del self._successors[worker.number]
                self._to_replace.clear()
                if not self._stopping:
                    self._events.not_replaced(worker.number)
            else:
                del self._workers[worker.number]
                if not self._stopping:
                    self._lost(worker, code)
            worker.process.close()
            self._events.gone(worker.place)

    def _lost(self, worker: _Worker, code: int) -> None:
        """Handle a worker that ended by itself."""
        self._events.ended(worker.number, code)
        number, now = worker.number, time.monotonic()
        lived = worker.serving and now - worker.started >= SHORT_LIFE
        self._short_lives[number] = 0 if lived else self._short_lives.get(number, 0) + 1
        refuses_to_start = code > 0 and not self._ever_served
        if refuses_to_start or self._hopeless():
            self._events.given_up()
            self._stopping, self._code = True, 1
            return
        again = self._short_lives[number] - 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (again - 1)) if again > 0 else 0.0
        self._due[number] = now + delay

    def _hopeless(self) -> bool:
        if any(worker.serving for worker in self._workers.values()):
            return False
        return max(self._short_lives.values()) >= MOST_SHORT_LIVES

    def _start_due(self) -> None:
        now = time.monotonic()
        for number in [number for number, moment in self._due.items() if moment <= now]:
            del self._due[number]
            if number not in self._workers:
                self._workers[number] = self._start(number)

    def _replace_next(self) -> None:
        if self._successors or not self._to_replace:
            return
        number = self._to_replace.pop(0)
        if number in self._workers:
            self._successors[number] = self._start(number)

    def _stop(self) -> None:
        """Ask all workers to end, including those that were replaced."""
        self._told = True
        self._due.clear()
        self._to_replace.clear()
        self._leaving += [*self._workers.values(), *self._successors.values()]
        self._workers.clear()
        self._successors.clear()
        served = {each.number for each in self._leaving if each.serving}
        for worker in self._leaving:
            # A worker that is still starting finds this request later.
            worker.ask(Ask.STOP, patience=self._patience)
            if not worker.serving and (
                worker.number in served or self._events.may_be_dropped(worker.number)
            ):
                worker.drop()
        self._events.stopping()

    def _kill_late(self) -> None:
        for worker in self._leaving:
            if worker.until is not None and time.monotonic() >= worker.until:
                self._events.killed(worker.number)
                worker.process.kill()
                worker.until = None

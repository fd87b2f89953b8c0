"""A kernel timer that an event loop can wait for.

The loops' own timers round to a millisecond, a fifth of what the tightest goal allows in all.
"""

import ctypes
import os
import time

CLOCK_MONOTONIC = 1
libc = ctypes.CDLL(None, use_errno=True)


class Spec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class Timer:
    """`fileno()` becomes readable when the timer fires. Linux only. Raises OSError."""

    def __init__(self) -> None:
        self.fd = libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        return self.fd

    def fire_at(self, due: float) -> None:
        """Fire once, at `due` on `time.monotonic()`'s clock; at once when that has passed."""
        self._arm(max(due - time.monotonic(), 1e-6), 0.0)

    def fire_every(self, period: float) -> None:
        self._arm(period, period)

    def drain(self) -> None:
        """Call when readable, or it stays so."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def _arm(self, first: float, every: float) -> None:
        spec = Spec(*_split(every), *_split(first))
        if libc.timerfd_settime(self.fd, 0, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")


def _split(seconds: float) -> tuple[int, int]:
    return divmod(int(seconds * 1e9), 1_000_000_000)

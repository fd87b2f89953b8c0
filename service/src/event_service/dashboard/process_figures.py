"""The resources that this process uses."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")


class ProcessFigures:
    """The CPU time and the memory of this process."""

    def __init__(
        self, clock: Callable[[], float], *, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._looked_at = clock()
        self._cpu_then = cpu_clock()
        self._cpu = 0.0

    def cpu(self) -> float:
        """Cores in use since the last call; within half a second of it, the same value again."""
        now = self._clock()
        if now - self._looked_at >= 0.5:  # noqa: PLR2004  shorter stretches say little
            used = self._cpu_clock()
            self._cpu = (used - self._cpu_then) / (now - self._looked_at)
            self._looked_at, self._cpu_then = now, used
        return self._cpu


def memory() -> int:
    """Bytes in use, or the peak if the system does not report the current value."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")

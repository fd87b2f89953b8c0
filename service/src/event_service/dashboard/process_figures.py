"""What this process takes of its machine."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")


class ProcessFigures:
    """The processor time and the memory that this process takes."""

    def __init__(
        self, clock: Callable[[], float], *, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._looked_at = clock()
        self._cpu_then = cpu_clock()
        self._cpu = 0.0

    def cpu(self) -> float:
        """Cores in use since it was asked before, or the second before that."""
        now = self._clock()
        if now - self._looked_at >= 0.5:  # noqa: PLR2004  shorter stretches say little
            used = self._cpu_clock()
            self._cpu = (used - self._cpu_then) / (now - self._looked_at)
            self._looked_at, self._cpu_then = now, used
        return self._cpu


def memory() -> int:
    """Bytes in use; where the system does not tell, the most there ever were."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")

import math
from collections.abc import Callable
from contextvars import ContextVar

# When the current request must be over, on the clock of its event loop (`loop.time`). Tasks
# inherit it with their context.
deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def time_left(clock: Callable[[], float]) -> float:
    """Seconds until the deadline, negative when it has passed; infinite when none is set."""
    return deadline.get() - clock()

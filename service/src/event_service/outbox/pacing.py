"""How many lanes a worker processes concurrently, and how long a lane pauses after a failure."""

from collections.abc import Callable

# Most lanes that one worker processes concurrently.
MOST_LANES = 32
# Seconds: the first pause, and the longest one while nothing succeeds.
SHORT = 1.0
SHORT_LONGEST = 10.0
# Seconds: the longest pause of an event that fails while others succeed.
LONGEST = 600.0
# Seconds that a failed canary waits beyond the cooldown, for each time that it failed as one.
HEAD_START = 1.0
MOST_HEAD_STARTS = 10
JITTER = 0.1
# Users whose failures are remembered.
MOST_USERS = 10_000


class Window:
    """How many lanes may be processed concurrently.

    It starts at one, grows by one with each success and halves with each failure. So few events
    are sent to an upstream that is down before its circuit opens, and load returns gradually after
    an outage.
    """

    def __init__(self, most: int = MOST_LANES) -> None:
        self._most = most
        self._size = 1

    @property
    def size(self) -> int:
        return self._size

    def succeeded(self) -> None:
        self._size = min(self._most, self._size + 1)

    def failed(self) -> None:
        self._size = max(1, self._size // 2)

    def start_over(self) -> None:
        self._size = 1


class Rests:
    """How long a lane pauses after a failure of its first event, in seconds.

    If other events succeed, the event itself is the likely cause: its pauses grow, and are long
    enough that it alone cannot open the circuit. If nothing succeeds, the upstream is the likely
    cause: the pause is short, because the circuit limits the attempts. An event that failed as the
    canary waits longer than the cooldown, so that another event becomes the next canary.
    """

    def __init__(self, *, window: float, random: Callable[[], float]) -> None:
        """`window`: seconds over which the breaker counts failures. `random` returns [0, 1)."""
        self._window = window
        self._random = random
        self._successes = 0
        self._failed_at: dict[str, int] = {}  # by user: `_successes` at the last failure

    def succeeded(self, user_id: str | None = None) -> None:
        """Count a success; `user_id` is known if this worker made the delivery."""
        self._successes += 1
        if user_id is not None:
            self._failed_at.pop(user_id, None)

    def after_failure(self, user_id: str, failures: int) -> float:
        """The pause after failure number `failures` of one event, counted from 1."""
        before = self._failed_at.pop(user_id, self._successes)
        if len(self._failed_at) >= MOST_USERS:
            del self._failed_at[next(iter(self._failed_at))]
        self._failed_at[user_id] = self._successes
        doublings = min(failures, 30)
        if self._successes > before:
            rest = min(LONGEST, self._window * 2.0 ** max(0, doublings - 2))
            # Longer than the window, so that the breaker never counts two of its failures.
            rest = max(rest, self._window) * (1 + JITTER)
        else:
            rest = min(SHORT_LONGEST, SHORT * 2.0 ** (doublings - 1))
        return rest * (1 + JITTER * self._random())

    def after_canary(self, *, cooldown: float, canaries: int) -> float:
        """The pause after an event has failed as the canary `canaries` times, counted from 1."""
        return cooldown + HEAD_START * min(canaries, MOST_HEAD_STARTS) * (1 - self._random() / 2)

"""How many lanes are worked on at once, and how long one rests after a failure."""

from collections.abc import Callable

# The most lanes that one worker works on at once.
MOST_LANES = 32
# Seconds of the first rest, and the longest of them while nothing succeeds.
SHORT = 1.0
SHORT_LONGEST = 10.0
# The longest rest of an event that fails while others succeed.
LONGEST = 600.0
# Seconds that a canary which failed lets others go first, for each time that it did.
HEAD_START = 1.0
MOST_HEAD_STARTS = 10
JITTER = 0.1
# Users whose failures are remembered.
MOST_USERS = 10_000


class Window:
    """How many lanes may be worked on at once.

    One at first, and one more for each success, so that an upstream which is down is not met by
    a crowd before its circuit opens, and one that has come back not at once; half as many after a
    failure.
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
    """How long a lane rests after a failure of its first event, in seconds.

    An event that fails while others succeed has itself to blame: it comes back so seldom that it
    alone opens no circuit, and ever later. While nothing succeeds the upstream is to blame: it is
    tried again soon, the circuit says how often. An event that failed as the canary gives others
    the chance to be the next one, who may do better.
    """

    def __init__(self, *, window: float, random: Callable[[], float]) -> None:
        """`window`: the seconds in which the breaker counts failures; `random` in [0, 1)."""
        self._window = window
        self._random = random
        self._successes = 0
        self._failed_at: dict[str, int] = {}  # user: how many successes there had been

    def succeeded(self, user_id: str | None = None) -> None:
        """Something was delivered, of this user if it was us."""
        self._successes += 1
        if user_id is not None:
            self._failed_at.pop(user_id, None)

    def after_failure(self, user_id: str, failures: int) -> float:
        """The rest after failure number `failures` of one event, counted from 1."""
        before = self._failed_at.pop(user_id, self._successes)
        if len(self._failed_at) >= MOST_USERS:
            del self._failed_at[next(iter(self._failed_at))]
        self._failed_at[user_id] = self._successes
        doublings = min(failures, 30)
        if self._successes > before:
            rest = min(LONGEST, self._window * 2.0 ** max(0, doublings - 2))
            # Never within the window, not even at its very end.
            rest = max(rest, self._window) * (1 + JITTER)
        else:
            rest = min(SHORT_LONGEST, SHORT * 2.0 ** (doublings - 1))
        return rest * (1 + JITTER * self._random())

    def after_canary(self, *, cooldown: float, canaries: int) -> float:
        """The rest after an event has failed as the canary so many times, counted from 1."""
        return cooldown + HEAD_START * min(canaries, MOST_HEAD_STARTS) * (1 - self._random() / 2)

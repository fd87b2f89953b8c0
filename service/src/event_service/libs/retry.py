import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

T = TypeVar("T")
GaveUp = Literal["attempts", "deadline", "budget"]

_SLOTS = 10


class RetryBudget:
    """Grants retries while they are few compared with requests.

    When a retry is granted, the retries of the last `window` seconds are at most `ratio` times the
    requests of the last `window` seconds, plus `floor` divided by the number of `nodes`. The window
    has ten slots: a request may be forgotten up to a tenth of the window early and a retry
    remembered up to a tenth longer, so rounding never grants too much. Memory and time are
    constant.

    The idea is Finagle's: com.twitter.finagle.service.RetryBudget. Use from one thread.
    """

    def __init__(
        self,
        ratio: float,
        *,
        window: float = 10.0,
        floor: float = 10.0,
        nodes: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = ratio
        self._floor = floor
        self._nodes = nodes
        self._slot_length = window / _SLOTS
        self._clock = clock
        self._slot = int(clock() // self._slot_length)
        self._slot_ends = (self._slot + 1) * self._slot_length
        self._requests = deque([0] * _SLOTS, maxlen=_SLOTS)
        self._retries = deque([0] * (_SLOTS + 1), maxlen=_SLOTS + 1)

    def record_request(self) -> None:
        """Count a first attempt. Retries do not count."""
        now = self._clock()
        if now >= self._slot_ends:
            self._advance(now)
        self._requests[-1] += 1

    def try_spend(self) -> bool:
        """Take one retry from the budget; False if it is empty."""
        if self.remaining < 1:
            return False
        self._retries[-1] += 1
        return True

    @property
    def remaining(self) -> float:
        """Retries that would be granted now, with the fraction towards the next one."""
        now = self._clock()
        if now >= self._slot_ends:
            self._advance(now)
        floor = self._floor / self._nodes()
        return max(0.0, self._ratio * sum(self._requests) + floor - sum(self._retries))

    def _advance(self, now: float) -> None:
        slot = int(now // self._slot_length)
        for _ in range(min(slot - self._slot, _SLOTS + 1)):
            self._requests.append(0)
            self._retries.append(0)
        self._slot = slot
        self._slot_ends = (slot + 1) * self._slot_length


def backoff(attempt: int, *, base: float, cap: float, random: Callable[[], float]) -> float:
    """Seconds to wait after failed attempt number `attempt`, counted from 1.

    "Full jitter" of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
    random_between(0, min(cap, base * 2 ** attempt)), with attempts counted from 0.
    """
    return random() * min(cap, base * 2.0 ** min(attempt - 1, 64))


class Retries:
    """Repeats calls that failed but may succeed, within limits on attempts, time and a budget.

    `retry_after(exc)` is None for a final error, else the minimum wait in seconds that the other
    side asked for (0.0 if none). The backoff is added to it, so that callers told the same time do
    not return together. `until()` is when the answer is due, on `clock`. `on_retry(attempt, exc,
    wait)` is called before each wait, `on_give_up(exc, attempt, reason)` when there is no retry.

    The caller fills the budget, with each first attempt that was really started.
    """

    def __init__(
        self,
        attempts: int,
        *,
        budget: RetryBudget,
        retry_after: Callable[[Exception], float | None],
        backoff: Callable[[int], float],
        until: Callable[[], float],
        clock: Callable[[], float],
        on_retry: Callable[[int, Exception, float], None],
        on_give_up: Callable[[Exception, int, GaveUp], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._attempts = attempts
        self._budget = budget
        self._retry_after = retry_after
        self._backoff = backoff
        self._until = until
        self._clock = clock
        self._on_retry = on_retry
        self._on_give_up = on_give_up
        self._sleep = sleep

    async def run(
        self, call: Callable[..., Awaitable[T]], *args: object, attempts: int | None = None
    ) -> T:
        """Call `call(attempt, *args)`, attempts counted from 1, until it succeeds or a limit is
        reached.

        `attempts` overrides the usual maximum. The last error is raised unchanged when attempts are
        used up, the wait would end too late, or the budget is spent. A final error and a
        cancellation propagate at once, without a callback.
        """
        attempt = 1
        while True:
            try:
                return await call(attempt, *args)
            except Exception as exc:
                asked = self._retry_after(exc)
                if asked is None:
                    raise
                wait = asked + self._backoff(attempt)
                reason = self._why_not(attempt, attempts or self._attempts, wait)
                if reason is not None:
                    self._on_give_up(exc, attempt, reason)
                    raise
                self._on_retry(attempt, exc, wait)
            # Outside the `except`, so that a cancellation of the wait does not carry the error as
            # its context.
            await self._sleep(wait)
            attempt += 1

    def _why_not(self, attempt: int, attempts: int, wait: float) -> GaveUp | None:
        if attempt >= attempts:
            return "attempts"
        if self._clock() + wait >= self._until():
            return "deadline"
        return None if self._budget.try_spend() else "budget"

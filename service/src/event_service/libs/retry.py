import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

T = TypeVar("T")
GaveUp = Literal["attempts", "deadline", "budget"]

_SLOTS = 10


class RetryBudget:
    """Lets retries through while they are few compared with requests.

    At each retry granted, the retries of the last `window` seconds are at most `ratio` times
    the requests of the last `window` seconds, plus `floor`. The window is counted in ten
    slots: a request may be forgotten up to a tenth of the window early, a retry is remembered
    up to a tenth longer, so rounding never grants too much. Memory and time are constant.

    The idea is Finagle's: com.twitter.finagle.service.RetryBudget. Use from one thread.
    """

    def __init__(
        self,
        ratio: float,
        *,
        window: float = 10.0,
        floor: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = ratio
        self._floor = floor
        self._slot_length = window / _SLOTS
        self._clock = clock
        self._slot = int(clock() // self._slot_length)
        self._slot_ends = (self._slot + 1) * self._slot_length
        self._requests = deque([0] * _SLOTS, maxlen=_SLOTS)
        self._retries = deque([0] * (_SLOTS + 1), maxlen=_SLOTS + 1)

    def record_request(self) -> None:
        """Count a first attempt; retries are not requests."""
        self._advance()
        self._requests[-1] += 1

    def try_spend(self) -> bool:
        """Take one retry out of the budget, if there is one."""
        if self.remaining < 1:
            return False
        self._retries[-1] += 1
        return True

    @property
    def remaining(self) -> float:
        """Retries that would be granted now; a fraction is on its way to the next one."""
        self._advance()
        return max(0.0, self._ratio * sum(self._requests) + self._floor - sum(self._retries))

    def _advance(self) -> None:
        now = self._clock()
        if now < self._slot_ends:
            return
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


async def with_retries(
    call: Callable[[int], Awaitable[T]],
    *,
    attempts: int,
    budget: RetryBudget,
    retry_after: Callable[[Exception], float | None],
    deadline: float,
    backoff: Callable[[int], float],
    on_retry: Callable[[int, Exception, float], None],
    clock: Callable[[], float],
    on_give_up: Callable[[Exception, int, GaveUp], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Call `call(attempt)`, with attempts counted from 1, until it succeeds or retrying is over.

    `retry_after(exc)` is None when the error is final, else the least wait in seconds that the
    other side asked for (0.0 when it did not say). The backoff comes on top of that, so that
    callers told the same time do not come back together. `on_retry(attempt, exc, wait)` is told
    of every retry before its wait.

    The last error is raised as it is when attempts are used up, when the wait would not end
    before `deadline` (in `clock` time), or when the budget is spent; `on_give_up(exc, attempt,
    reason)` says which. A final error and a cancellation pass at once and unmentioned.
    """
    budget.record_request()
    attempt = 1
    while True:
        try:
            return await call(attempt)
        except Exception as exc:
            asked = retry_after(exc)
            if asked is None:
                raise
            wait = asked + backoff(attempt)
            reason: GaveUp | None = None
            if attempt >= attempts:
                reason = "attempts"
            elif clock() + wait >= deadline:
                reason = "deadline"
            elif not budget.try_spend():
                reason = "budget"
            if reason is not None:
                if on_give_up is not None:
                    on_give_up(exc, attempt, reason)
                raise
            on_retry(attempt, exc, wait)
        # Outside the handler: a cancellation of the wait does not drag the error along.
        await sleep(wait)
        attempt += 1

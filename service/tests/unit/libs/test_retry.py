import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.retry import Retries, RetryBudget, backoff

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self, now=100.0):
        self.now = now
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def budget_of(retries, clock=None):
    return RetryBudget(0.0, floor=retries, clock=clock or Clock())


def test_retries_stay_within_the_ratio_of_requests():
    budget = RetryBudget(0.1, floor=0, clock=Clock())
    for _ in range(100):
        budget.record_request()

    assert [budget.try_spend() for _ in range(11)] == [True] * 10 + [False]


def test_the_floor_is_granted_without_any_requests():
    budget = RetryBudget(0.1, floor=3, clock=Clock())

    assert [budget.try_spend() for _ in range(4)] == [True] * 3 + [False]


def test_the_floor_is_divided_by_the_live_nodes_and_the_share_is_not():
    nodes = 4
    budget = RetryBudget(0.1, floor=8, nodes=lambda: nodes, clock=Clock())
    for _ in range(10):
        budget.record_request()
    assert budget.remaining == 3

    nodes = 2
    assert budget.remaining == 5


def test_what_remains_counts_requests_and_retries():
    budget = RetryBudget(0.1, floor=2, clock=Clock())
    for _ in range(5):
        budget.record_request()
    assert budget.remaining == 2.5

    assert budget.try_spend()
    assert budget.remaining == 1.5


def test_requests_are_forgotten_after_the_window():
    clock = Clock()
    budget = RetryBudget(0.5, window=10.0, floor=0, clock=clock)
    for _ in range(10):
        budget.record_request()

    clock.now += 9
    assert budget.remaining == 5
    clock.now += 1
    assert budget.remaining == 0
    assert not budget.try_spend()


def test_a_spent_budget_recovers_after_the_window():
    clock = Clock()
    budget = RetryBudget(0.1, window=10.0, floor=2, clock=clock)
    while budget.try_spend():
        pass

    clock.now += 10
    assert not budget.try_spend(), "a retry just as old as the window may still be inside it"
    clock.now += 1
    assert budget.remaining == 2


def test_a_long_silence_forgets_everything():
    clock = Clock()
    budget = RetryBudget(0.5, window=10.0, floor=1, clock=clock)
    for _ in range(10):
        budget.record_request()
    assert budget.try_spend()

    clock.now += 3600

    assert budget.remaining == 1


def test_what_remains_is_never_negative():
    clock = Clock()
    budget = RetryBudget(1.0, window=10.0, floor=0, clock=clock)
    budget.record_request()
    assert budget.try_spend()

    clock.now += 10

    assert budget.remaining == 0


@given(
    ratio=st.sampled_from([0.0, 0.1, 0.25, 1.0]),
    floor=st.integers(0, 3),
    steps=st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["request", "retry"]))),
)
def test_no_window_that_ends_with_a_retry_holds_more_than_the_budget(ratio, floor, steps):
    clock = Clock()
    budget = RetryBudget(ratio, window=10.0, floor=floor, clock=clock)
    requests, retries = [], []
    for hundredths, action in steps:
        clock.now += hundredths / 100
        if action == "request":
            budget.record_request()
            requests.append(clock.now)
        elif budget.try_spend():
            retries.append(clock.now)
            window = clock.now - 10.0 + 1e-9
            granted = sum(at > window for at in retries)
            assert granted <= ratio * sum(at > window for at in requests) + floor + 1e-9


@given(st.lists(st.integers(0, 300), max_size=300))
def test_in_a_total_outage_the_load_grows_by_no_more_than_the_ratio_and_the_floors(pauses):
    clock = Clock()
    start = clock.now
    budget = RetryBudget(0.1, window=10.0, floor=2, clock=clock)
    retries = 0
    for hundredths in pauses:
        clock.now += hundredths / 100
        budget.record_request()
        for _ in range(2):
            retries += budget.try_spend()

    windows = (clock.now - start) / 10.0 + 1
    assert retries <= 0.1 * len(pauses) + 2 * windows


def test_the_backoff_doubles_up_to_its_cap():
    longest = [backoff(n, base=0.1, cap=0.5, random=lambda: 1.0) for n in (1, 2, 3, 4, 5000)]

    assert longest == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_the_backoff_is_jittered_over_its_whole_range():
    assert backoff(3, base=0.1, cap=9.0, random=lambda: 0.0) == 0.0
    assert backoff(3, base=0.1, cap=9.0, random=lambda: 0.5) == pytest.approx(0.2)


class Upstream:
    """Answers in turn; records which attempt it was."""

    def __init__(self, *answers):
        self.answers = deque(answers)
        self.attempts = []

    async def __call__(self, attempt):
        self.attempts.append(attempt)
        answer = self.answers.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Busy(Exception):
    def __init__(self, retry_after=0.0):
        super().__init__()
        self.retry_after = retry_after


def asked_wait(exc):
    return exc.retry_after if isinstance(exc, Busy) else None


class Story:
    """One use of `Retries` and all that it told."""

    def __init__(self, upstream, *, attempts=3, budget=None, deadline=1000.0):
        self.upstream = upstream
        self.clock = Clock()
        self.attempts = attempts
        self.budget = budget or budget_of(100)
        self.deadline = deadline
        self.retried = []
        self.gave_up = []

    async def run(self):
        retries = Retries(
            self.attempts,
            budget=self.budget,
            retry_after=asked_wait,
            until=lambda: self.deadline,
            backoff=lambda attempt: attempt / 10,
            on_retry=lambda *told: self.retried.append(told),
            on_give_up=lambda *told: self.gave_up.append(told),
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        return await retries.run(self.upstream)


async def test_a_success_is_returned_at_once():
    story = Story(Upstream("fine"))

    assert await story.run() == "fine"
    assert (story.upstream.attempts, story.clock.slept, story.retried) == ([1], [], [])


async def test_a_failure_is_tried_again_after_the_backoff():
    first, second = Busy(), Busy()
    story = Story(Upstream(first, second, "fine"))

    assert await story.run() == "fine"
    assert story.upstream.attempts == [1, 2, 3]
    assert story.clock.slept == [0.1, 0.2]
    assert story.retried == [(1, first, 0.1), (2, second, 0.2)]
    assert story.gave_up == []


async def test_the_wait_the_upstream_asked_for_comes_before_the_backoff():
    story = Story(Upstream(Busy(retry_after=2.0), "fine"))

    assert await story.run() == "fine"
    assert story.clock.slept == [2.1]


async def test_a_final_error_is_raised_at_once():
    story = Story(Upstream(ValueError("final")))

    with pytest.raises(ValueError, match="final"):
        await story.run()
    assert (story.upstream.attempts, story.retried, story.gave_up) == ([1], [], [])


async def test_the_last_error_is_raised_as_it_is_when_attempts_are_used_up():
    errors = [Busy(), Busy(), Busy()]
    story = Story(Upstream(*errors))

    with pytest.raises(Busy) as raised:
        await story.run()

    assert raised.value is errors[2]
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None
    assert story.gave_up == [(errors[2], 3, "attempts")]


async def test_the_error_is_raised_when_the_budget_is_spent():
    errors = [Busy(), Busy()]
    story = Story(Upstream(*errors), budget=budget_of(1))

    with pytest.raises(Busy) as raised:
        await story.run()

    assert raised.value is errors[1]
    assert story.gave_up == [(errors[1], 2, "budget")]


async def test_no_wait_reaches_the_deadline():
    error = Busy(retry_after=0.9)
    story = Story(Upstream(error), deadline=101.0)

    with pytest.raises(Busy):
        await story.run()

    assert story.clock.slept == []
    assert story.gave_up == [(error, 1, "deadline")]


async def test_a_wait_that_ends_before_the_deadline_is_taken():
    story = Story(Upstream(Busy(retry_after=0.9), "fine"), deadline=101.001)

    assert await story.run() == "fine"


async def test_a_retry_refused_for_another_reason_costs_no_budget():
    budget = budget_of(1)
    for story in (
        Story(Upstream(Busy()), budget=budget, attempts=1),
        Story(Upstream(Busy()), budget=budget, deadline=0.0),
    ):
        with pytest.raises(Busy):
            await story.run()

    assert budget.remaining == 1


async def test_a_cancelled_wait_does_not_drag_the_error_along():
    async def cancelled(_):
        raise asyncio.CancelledError

    story = Story(Upstream(Busy()))
    story.clock.sleep = cancelled

    with pytest.raises(asyncio.CancelledError) as raised:
        await story.run()
    assert raised.value.__context__ is None


async def test_a_cancellation_is_not_retried():
    story = Story(Upstream(asyncio.CancelledError(), "never"))

    with pytest.raises(asyncio.CancelledError):
        await story.run()
    assert story.upstream.attempts == [1]

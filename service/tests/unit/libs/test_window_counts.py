from collections import Counter

import limits
from hypothesis import given
from hypothesis import strategies as st
from limits.strategies import FixedWindowRateLimiter

from event_service.libs.window_counts import WindowCounts


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_counting_begins_anew_when_a_window_has_ended():
    clock = Clock()
    counts = WindowCounts(10, clock=clock)
    counts.incr("a", 60)
    counts.incr("a", 60)

    clock.now += 60

    assert counts.get("a") == 0
    assert counts.incr("a", 60) == 1


def test_a_window_ends_so_long_after_its_first_hit_whatever_follows():
    clock = Clock()
    counts = WindowCounts(10, clock=clock)
    counts.incr("a", 60)
    clock.now += 59
    counts.incr("a", 60)

    assert counts.get_expiry("a") == 1_060.0


def test_tens_of_thousands_of_keys_at_once_stay_within_the_bound():
    counts = WindowCounts(1_000, clock=Clock())

    for number in range(50_000):
        counts.incr(str(number), 3_600)

    assert len(counts) == 1_000
    assert counts.get("49999") == 1
    assert counts.get("0") == 0


def test_ended_windows_go_as_others_begin():
    clock = Clock()
    counts = WindowCounts(100_000, clock=clock)
    for number in range(10_000):
        counts.incr(f"old {number}", 1)
    clock.now += 1

    for number in range(10_000):
        counts.incr(f"new {number}", 1)

    assert len(counts) == 10_000


def test_a_key_that_hits_on_is_not_forgotten_for_its_own_ended_window():
    clock = Clock()
    counts = WindowCounts(2, clock=clock)
    counts.incr("a", 1)
    counts.incr("b", 10)
    clock.now += 1

    counts.incr("a", 1)

    assert (counts.get("a"), counts.get("b")) == (1, 1)


steps = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1.5)), max_size=60)


@given(steps, st.integers(1, 5))
def test_nobody_gets_more_than_the_rate_in_a_window_or_less_than_it(
    hits: list[tuple[str, float]], amount: int
):
    clock = Clock()
    limiter = FixedWindowRateLimiter(WindowCounts(10, clock=clock))
    rate = limits.parse(f"{amount}/second")
    begun: dict[str, float] = {}
    granted: Counter[str] = Counter()

    for key, pause in hits:
        clock.now += pause
        if clock.now >= begun.get(key, -1.0) + 1:
            begun[key], granted[key] = clock.now, 0
        within = limiter.hit(rate, key)
        assert within == (granted[key] < amount)
        granted[key] += within

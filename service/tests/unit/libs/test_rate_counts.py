import pytest

from event_service.libs.rate_counts import RateCounts
from event_service.libs.rates import parse_rates

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_long_window_is_not_forgotten_for_want_of_room_among_short_ones():
    clock = Clock()
    counts = RateCounts(parse_rates("100/second;2/hour"), max_windows=10, clock=clock)
    await counts.take("kept")
    for number in range(9):
        await counts.take(f"other {number}")
    for _ in range(30):
        clock.now += 1.0
        for number in range(9):
            await counts.take(f"other {number}")
    await counts.take("kept")

    assert (await counts.take("kept")).wait == 3_600 - 30


async def test_a_refused_request_counts_against_no_rate():
    counts = RateCounts(parse_rates("1/second;3/hour"), max_windows=10, clock=Clock())

    standings = [await counts.take("a") for _ in range(4)]

    assert [standing.wait for standing in standings] == [0.0, 1.0, 1.0, 1.0]
    assert standings[-1].rates == [(0, 1.0), (2, 3_600.0)]


async def test_a_window_is_never_longer_than_its_rate_says():
    readings = iter(range(1_000, 2_000))
    counts = RateCounts(parse_rates("5/minute"), max_windows=10, clock=lambda: next(readings))

    assert (await counts.take("a")).rates == [(4, 60.0)]

import pytest

from event_service.dashboard.rolling_stats import HISTORY, RECENT, RollingStats


def test_what_happens_in_a_second_shows_once_the_second_is_over():
    stats = RollingStats(kinds=2)
    stats.add(0, 0.01)
    stats.add(1, 0.01)
    stats.add(1, 0.01)

    assert stats.counts_by_second()[-1] == [0, 0]
    stats.close_second()

    assert stats.counts_by_second()[-1] == [1, 2]
    assert len(stats.counts_by_second()) == HISTORY


def test_a_second_is_forgotten_after_two_minutes():
    stats = RollingStats(kinds=1)
    stats.add(0, 0.01)

    for _ in range(HISTORY):
        stats.close_second()
    assert stats.counts_by_second()[0] == [1]
    stats.close_second()

    assert not any(map(any, stats.counts_by_second()))
    assert len(stats.latency_by_second()) == HISTORY


def test_recent_looks_at_the_last_seconds_alone():
    stats = RollingStats(kinds=1)
    stats.add(0, 5.0)
    stats.close_second()
    for _ in range(RECENT):
        stats.add(0, 0.001)
        stats.close_second()

    recent = stats.recent()

    assert recent.counts == [RECENT]
    assert recent.latency.p99 == pytest.approx(0.001, rel=0.2)


def test_nothing_measured_has_no_percentiles():
    assert RollingStats(kinds=1).recent().latency == (None, None, None)


@pytest.mark.parametrize("duration", [0.0003, 0.004, 0.52, 2.0, 30.0])
def test_a_percentile_is_at_most_a_sixth_too_high_and_never_too_low(duration):
    stats = RollingStats(kinds=1)
    stats.add(0, duration)
    stats.close_second()

    p50, p95, p99 = stats.latency_by_second()[-1]

    assert p50 == p95 == p99
    assert p50 is not None
    assert duration <= p50 <= duration * 7 / 6


def test_percentiles_are_nearest_ranks():
    stats = RollingStats(kinds=1)
    for duration, times in [(0.001, 50), (0.01, 45), (0.1, 4), (1.0, 1)]:
        for _ in range(times):
            stats.add(0, duration)
    stats.close_second()

    latency = stats.latency_by_second()[-1]

    assert latency == pytest.approx((0.001, 0.01, 0.1), rel=0.2)


def test_an_hour_long_call_lands_in_the_last_bin():
    stats = RollingStats(kinds=1)
    stats.add(0, 3600.0)
    stats.close_second()

    assert (stats.latency_by_second()[-1].p50 or 0) > 60

import pytest

from event_service.context import CacheStatus


def said(status: CacheStatus) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in status.headers()}


def test_a_reply_that_no_cache_took_part_in_says_nothing():
    assert said(CacheStatus("c")) == {}


@pytest.mark.parametrize(("age", "ttl", "told"), [(0.0, 5.0, (0, 5)), (3.9, 1.1, (3, 1))])
def test_a_hit_has_its_age_and_remaining_time(age: float, ttl: float, told: tuple[int, int]):
    status = CacheStatus("c")
    status.hit(age=age, ttl=ttl)
    assert said(status) == {"cache-status": f"c; hit; ttl={told[1]}", "age": str(told[0])}


def test_of_several_hits_the_oldest_and_the_one_that_ends_first_count():
    status = CacheStatus("c")
    for age, ttl in ((1.0, 9.0), (7.0, 3.0), (2.0, 8.0)):
        status.hit(age=age, ttl=ttl)
    assert said(status) == {"cache-status": "c; hit; ttl=3", "age": "7"}


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_one_part_that_was_missing_makes_the_reply_a_miss(order: tuple[bool, bool]):
    status = CacheStatus("c")
    for stale in order:
        status.forwarded(stale=stale)
    assert said(status) == {"cache-status": "c; fwd=miss"}


def test_hit_and_fwd_exclude_each_other():
    status = CacheStatus("c")
    status.hit(age=2, ttl=8)
    status.forwarded(stale=True)
    assert said(status) == {"cache-status": "c; fwd=stale; ttl=8", "age": "2"}


def test_a_part_served_past_its_time_marks_the_reply():
    status = CacheStatus("c")
    status.hit(age=1, ttl=9)
    status.hit(age=10.5, ttl=-0.5)
    assert said(status) == {"cache-status": "c; hit; ttl=-1; detail=stale-if-error", "age": "10"}

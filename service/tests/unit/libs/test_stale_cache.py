import gc
import math

from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.stale_cache import Entry, StaleCache


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def a_cache(*, ttl=10.0, stale_for=5.0, max_entries=3, max_size=math.inf):
    clock = Clock()
    return StaleCache[str, str](ttl, stale_for, max_entries, clock, max_size=max_size), clock


def test_an_unknown_key_has_no_entry():
    cache, _ = a_cache()

    assert cache.get("ann") is None


def test_a_value_is_fresh_until_its_time_to_live_is_over():
    cache, clock = a_cache(ttl=10.0)
    cache.put("ann", "A")

    assert cache.get("ann") == Entry("A", age=0.0, fresh=True)
    clock.now += 9.5
    assert cache.get("ann") == Entry("A", age=9.5, fresh=True)
    clock.now += 0.5
    assert cache.get("ann") == Entry("A", age=10.0, fresh=False)


def test_a_stale_value_can_be_had_for_as_long_as_it_is_allowed():
    cache, clock = a_cache(ttl=10.0, stale_for=5.0)
    cache.put("ann", "A")

    clock.now += 14.5
    assert cache.get("ann") == Entry("A", age=14.5, fresh=False)
    clock.now += 0.5
    assert cache.get("ann") is None
    assert len(cache) == 0


def test_without_stale_time_a_value_ends_with_its_time_to_live():
    cache, clock = a_cache(ttl=10.0, stale_for=0.0)
    cache.put("ann", "A")

    clock.now += 10

    assert cache.get("ann") is None


def test_a_new_value_is_fresh_again():
    cache, clock = a_cache()
    cache.put("ann", "old")
    clock.now += 12
    cache.put("ann", "new")

    assert cache.get("ann") == Entry("new", age=0.0, fresh=True)
    assert len(cache) == 1


def test_the_least_recently_used_value_goes_first():
    cache, _ = a_cache(max_entries=2)
    cache.put("ann", "A")
    cache.put("bob", "B")
    cache.get("ann")
    cache.put("cem", "C")

    assert [key for key in ("ann", "bob", "cem") if cache.get(key)] == ["ann", "cem"]


def test_sizes_are_bounded_too():
    cache, _ = a_cache(max_entries=9, max_size=10)
    cache.put("ann", "A", size=6)
    cache.put("bob", "B", size=4)
    cache.put("cem", "C", size=1)

    assert [key for key in ("ann", "bob", "cem") if cache.get(key)] == ["bob", "cem"]


def test_a_value_larger_than_the_cache_is_not_kept_and_pushes_nothing_out():
    cache, _ = a_cache(max_size=10)
    cache.put("ann", "old", size=1)
    cache.put("bob", "B", size=9)
    cache.put("ann", "huge", size=11)

    assert cache.get("ann") is None, "nor is the value that it was to replace"
    assert cache.get("bob") is not None


def test_a_removed_value_frees_its_space():
    cache, clock = a_cache(max_size=10)
    cache.put("ann", "old", size=6)
    cache.put("ann", "new", size=6)
    assert cache.get("ann") is not None
    cache.invalidate("ann")
    cache.put("bob", "B", size=6)
    assert cache.get("bob") is not None
    clock.now += 100
    assert cache.get("bob") is None
    cache.put("cem", "C", size=6)

    assert cache.get("cem") is not None


def test_an_invalidated_value_is_gone():
    cache, _ = a_cache()
    cache.put("ann", "A")
    cache.invalidate("ann")

    assert cache.get("ann") is None
    cache.invalidate("nobody")


def test_a_fetch_that_began_before_an_invalidation_stores_nothing():
    cache, _ = a_cache()
    token = cache.begin("ann")
    cache.invalidate("ann")
    cache.put("ann", "outdated", token)

    assert cache.get("ann") is None


def test_a_fetch_that_began_after_an_invalidation_stores_its_value():
    cache, _ = a_cache()
    before = cache.begin("ann")
    cache.invalidate("ann")
    after = cache.begin("ann")
    cache.put("ann", "new", after)
    cache.put("ann", "outdated", before)

    assert cache.get("ann").value == "new"


def test_an_invalidation_concerns_its_own_key_alone():
    cache, _ = a_cache()
    token = cache.begin("ann")
    cache.invalidate("bob")
    cache.put("ann", "A", token)

    assert cache.get("ann").value == "A"


def test_simultaneous_fetches_of_a_key_may_all_store_theirs():
    cache, _ = a_cache()
    first, second = cache.begin("ann"), cache.begin("ann")
    cache.put("ann", "A", first)
    cache.put("ann", "B", second)

    assert cache.get("ann").value == "B"


def test_fetches_that_never_end_leave_nothing_behind():
    cache, _ = a_cache()
    for n in range(100):
        cache.begin(str(n))
    gc.collect()

    assert len(cache._fetches) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "invalidate", "wait"]),
            st.sampled_from("abcde"),
            st.integers(0, 8),
        )
    )
)
def test_whatever_happens_the_cache_stays_within_its_bounds_and_tells_the_truth(steps):
    cache, clock = a_cache(ttl=4.0, stale_for=4.0, max_entries=3, max_size=10)
    latest = {}
    for action, key, amount in steps:
        if action == "put":
            value = f"{key}{len(latest)}"
            cache.put(key, value, size=amount)
            latest[key] = (value, clock.now, amount)
        elif action == "invalidate":
            cache.invalidate(key)
            latest.pop(key, None)
        elif action == "wait":
            clock.now += amount
        found = {k: entry for k in latest if (entry := cache.get(k))}
        for k, entry in found.items():
            value, at, _ = latest[k]
            assert entry == Entry(value, clock.now - at, clock.now - at < 4)
            assert entry.age < 8
        assert len(cache) <= 3
        assert sum(latest[k][2] for k in found) <= 10

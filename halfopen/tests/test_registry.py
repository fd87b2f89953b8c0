import logging
import threading

import pytest

from halfopen import BreakerRegistry, CircuitBreaker, State, StateChanged


@pytest.fixture
def made():
    return []


@pytest.fixture
def registry_of(made):
    def registry_of(max_size=None):
        def factory(key):
            made.append(key)
            return CircuitBreaker(key)

        return BreakerRegistry(factory, max_size=max_size)

    return registry_of


def test_a_key_always_has_the_same_breaker(registry_of, made):
    registry = registry_of()

    assert registry["a"] is registry["a"]
    assert registry["b"] is not registry["a"]
    assert registry["b"].name == "b"
    assert made == ["a", "b"]


def test_looking_makes_no_breaker(registry_of, made):
    registry = registry_of()
    one = registry["a"]

    assert "a" in registry
    assert "b" not in registry
    assert len(registry) == 1
    assert list(registry) == ["a"]
    assert registry.items() == [("a", one)]
    assert made == ["a"]


def test_the_one_that_was_not_asked_for_the_longest_makes_room(registry_of, caplog):
    registry = registry_of(max_size=2)
    first, second = registry["a"], registry["b"]

    assert registry["a"] is first
    registry["c"]

    assert list(registry) == ["a", "c"]
    assert registry["b"] is not second
    assert list(registry) == ["c", "b"]
    assert caplog.records == []


def test_without_a_size_nothing_makes_room(registry_of):
    registry = registry_of()
    for key in range(1000):
        registry[str(key)]

    assert len(registry) == 1000
    assert next(iter(registry)) == "0"


def test_breakers_that_are_not_closed_are_kept_longer_than_closed_ones(registry_of, caplog):
    registry = registry_of(max_size=3)
    opened, closed, isolated = registry["a"], registry["b"], registry["c"]
    opened.trip()
    isolated.isolate()

    registry["d"]

    assert list(registry) == ["a", "c", "d"]
    assert closed.state is State.CLOSED
    assert caplog.records == []


def test_the_size_holds_even_if_all_are_needed_and_the_loss_is_logged(registry_of, caplog):
    registry = registry_of(max_size=2)
    isolated = registry["a"]
    isolated.isolate()
    registry["b"].trip()

    registry["c"].trip()
    assert list(registry) == ["a", "c"]
    registry["c"].isolate()
    registry["d"]

    assert list(registry) == ["c", "d"]
    messages = [(r.name, r.levelno, r.message) for r in caplog.records]
    assert messages == [
        ("halfopen", logging.WARNING, "<CircuitBreaker 'b': open> made room for another"),
        ("halfopen", logging.WARNING, "<CircuitBreaker 'a': isolated> made room for another"),
    ]


def test_a_registry_of_one(registry_of):
    registry = registry_of(max_size=1)
    for key in "abab":
        assert registry[key].name == key
        assert list(registry) == [key]


def test_a_factory_that_raises_leaves_nothing_behind(registry_of):
    def factory(key):
        if key == "bad":
            raise KeyError(key)
        return CircuitBreaker(key)

    registry = BreakerRegistry(factory)
    with pytest.raises(KeyError):
        registry["bad"]

    assert len(registry) == 0
    assert registry["good"].name == "good"


def test_a_factory_may_use_the_registry():
    def factory(key):
        if key != "parent":
            assert registry["parent"].name == "parent"
        return CircuitBreaker(key)

    registry = BreakerRegistry(factory)

    assert registry["child"].name == "child"
    assert list(registry) == ["parent", "child"]


def test_threads_that_ask_at_once_get_the_same_breaker():
    threads = 8
    barrier = threading.Barrier(threads)

    def factory(key):
        barrier.wait(10)  # all are in the factory at once
        return CircuitBreaker(key)

    registry = BreakerRegistry(factory, max_size=1)
    got = []
    workers = [threading.Thread(target=lambda: got.append(registry["a"])) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(got) == threads
    assert len({id(breaker) for breaker in got}) == 1
    assert registry["a"] is got[0]


def test_get_creates_no_breaker_and_does_not_count_as_a_use(registry_of, made):
    registry = registry_of(max_size=2)
    first = registry["a"]
    registry["b"]

    assert registry.get("a") is first
    assert registry.get("c") is None
    assert registry.get("c", 5) == 5
    registry["c"]

    assert list(registry) == ["b", "c"]
    assert made == ["a", "b", "c"]


def test_what_was_popped_is_made_anew(registry_of):
    registry = registry_of()
    first = registry["a"]

    assert registry.pop("a") is first
    assert registry.pop("a") is None
    assert registry.pop("a", 5) == 5

    assert "a" not in registry
    assert registry["a"] is not first


def test_values_are_the_breakers(registry_of):
    registry = registry_of()
    breakers = [registry[key] for key in "abc"]

    assert registry.values() == breakers


def test_one_listener_hears_all_breakers_also_those_to_come(registry_of):
    registry = registry_of()
    told = []
    early = registry["early"]

    leave = registry.on(StateChanged, lambda change: told.append(change.breaker.name))
    late = registry["late"]
    early.trip()
    late.trip()
    gone = registry.pop("early")
    gone.reset()
    leave()
    leave()
    late.reset()
    registry["last"].trip()

    assert told == ["early", "late"]


def test_a_breaker_that_was_pushed_out_is_heard_no_more(registry_of):
    registry = registry_of(max_size=1)
    told = []
    registry.on(StateChanged, told.append)
    gone = registry["a"]
    registry["b"]

    gone.trip()

    assert told == []


def test_a_listener_of_all_is_checked(registry_of):
    registry = registry_of()

    for event, listener in ((int, print), (StateChanged, None)):
        with pytest.raises(TypeError, match=r"^(event|listener) must"):
            registry.on(event, listener)


def test_to_make_room_looks_at_few_of_many():
    looked = []

    class Key(str):
        __slots__ = ()

        def __eq__(self, other):
            looked.append(self)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    registry = BreakerRegistry(CircuitBreaker, max_size=1000)
    for number in range(1000):
        registry[Key(number)]
    looked.clear()

    registry[Key("new")]

    assert len(looked) < 10


class Meddling(str):
    """A key that has something happen while it is looked at, like a signal handler."""

    __slots__ = ()
    when_hashed = when_compared = None

    def __hash__(self):
        happens, Meddling.when_hashed = Meddling.when_hashed, None
        if happens is not None:
            happens()
        return str.__hash__(self)

    def __eq__(self, other):
        happens, Meddling.when_compared = Meddling.when_compared, None
        if happens is not None:
            happens()
        return str.__eq__(self, other)


def test_a_breaker_popped_during_its_lookup_is_created_again():
    registry = BreakerRegistry(CircuitBreaker, max_size=3)
    first = registry[Meddling("a")]

    def pop_it_when_it_is_moved():
        Meddling.when_hashed = lambda: registry.pop("a")

    Meddling.when_hashed = pop_it_when_it_is_moved
    second = registry[Meddling("a")]

    assert second is not first
    assert registry["a"] is second


def test_a_breaker_added_while_room_is_made_harms_nobody():
    registry = BreakerRegistry(CircuitBreaker, max_size=2)
    for key in "ab":
        registry[Meddling(key)].trip()

    def add_another():
        registry[Meddling("c")].trip()

    Meddling.when_compared = add_another
    assert registry[Meddling("d")].name == "d"

    assert len(registry) == 2


def test_a_listener_that_comes_while_a_breaker_is_added_hears_once():
    registry = BreakerRegistry(CircuitBreaker, max_size=1)
    told = []
    registry[Meddling("a")]
    Meddling.when_compared = lambda: registry.on(StateChanged, told.append)

    registry[Meddling("b")].trip()

    assert len(told) == 1

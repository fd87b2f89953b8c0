import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import threading
import warnings

import pytest

from halfopen import CallWindow, CircuitOpen, ConsecutiveFailures, FailureRate, State

STYLES = ["decorator", "call", "guard", "acquire"]


def sync_style(style, breaker, fn):
    def guard(*args):
        with breaker.guard():
            return fn(*args)

    def acquire(*args):
        permit = breaker.acquire()
        try:
            result = fn(*args)
        except Exception as exc:
            permit.failure(exc)
            raise
        permit.success()
        return result

    styles = {
        "decorator": breaker(fn),
        "call": functools.partial(breaker.call, fn),
        "guard": guard,
        "acquire": acquire,
    }
    return styles[style]


def async_style(style, breaker, fn):
    async def guard(*args):
        async with breaker.guard():
            return await fn(*args)

    async def acquire(*args):
        permit = breaker.acquire()
        try:
            result = await fn(*args)
        except Exception as exc:
            permit.failure(exc)
            raise
        except BaseException:
            permit.ignore()
            raise
        permit.success()
        return result

    async def call(*args):
        return await breaker.call(fn, *args)

    styles = {
        "decorator": breaker(fn),
        "call": call,
        "acall": functools.partial(breaker.acall, fn),
        "guard": guard,
        "acquire": acquire,
    }
    return styles[style]


@pytest.fixture(params=["calm", "counting"])
def breaker(make, request):
    """One whose healthy calls take the short way, and one that hears of each."""
    rules = {
        "calm": ConsecutiveFailures(2),
        "counting": FailureRate(0.5, over=CallWindow(4), minimum_calls=3),
    }
    return make(trip=rules[request.param])


@pytest.mark.parametrize("style", STYLES)
def test_every_style_guards_a_function(breaker, clock, style):
    guarded = sync_style(style, breaker, int)

    assert guarded("42") == 42
    for _ in range(2):
        with pytest.raises(ValueError, match="nonsense"):
            guarded("nonsense")

    assert breaker.state is State.OPEN
    with pytest.raises(CircuitOpen):
        guarded("42")
    clock.advance(10)
    assert guarded("42") == 42
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("style", [*STYLES, "acall"])
def test_every_style_guards_a_coroutine_function(breaker, clock, style):
    async def parse(text):
        await asyncio.sleep(0)
        return int(text)

    async def main():
        guarded = async_style(style, breaker, parse)
        assert await guarded("42") == 42
        for _ in range(2):
            with pytest.raises(ValueError, match="nonsense"):
                await guarded("nonsense")
        assert breaker.state is State.OPEN
        with pytest.raises(CircuitOpen):
            await guarded("42")
        clock.advance(10)
        assert await guarded("42") == 42
        assert breaker.state is State.CLOSED

    asyncio.run(main())


@pytest.mark.parametrize("style", [*STYLES, "acall"])
def test_a_call_that_raises_before_it_can_be_awaited_has_failed(breaker, clock, style):
    async def parse(text):
        return int(text)

    async def main():
        breaker.trip()
        clock.advance(10)
        with pytest.raises(TypeError, match="argument") as error:
            await async_style(style, breaker, parse)()
        assert error.tb is not None, "nothing that it refers to was collected"
        assert breaker.state is State.OPEN
        assert breaker.snapshot().retry_after == 10

    asyncio.run(main())


@pytest.mark.parametrize("style", [*STYLES, "acall"])
def test_a_cancelled_probe_gives_its_slot_back(breaker, clock, style):
    async def hang():
        await asyncio.Event().wait()

    async def main():
        breaker.trip()
        clock.advance(10)
        probe = asyncio.create_task(async_style(style, breaker, hang)())
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpen):
            breaker.acquire()
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert breaker.state is State.HALF_OPEN
        assert breaker.acquire().success()

    asyncio.run(main())


def test_arguments_reach_the_function_whatever_they_are_called(make):
    breaker = make()

    def named(*args, **kwargs):
        return args, kwargs

    async def anamed(*args, **kwargs):
        return args, kwargs

    expected = ((1,), {"fn": 2, "self": 3, "breaker": 4, "circuit": 5})
    assert breaker.call(named, 1, **expected[1]) == expected
    assert breaker(named)(1, **expected[1]) == expected
    assert asyncio.run(breaker.acall(anamed, 1, **expected[1])) == expected
    assert asyncio.run(breaker(anamed)(1, **expected[1])) == expected


def test_a_decorated_function_is_still_what_it_was(make):
    breaker = make()

    def function(a: int) -> int:
        """Says so."""
        return a

    async def coroutine(): ...
    def generator():
        yield

    async def async_generator():
        yield

    assert breaker(function).__doc__ == "Says so."
    assert breaker(function).__wrapped__ is function
    assert inspect.signature(breaker(function)) == inspect.signature(function)
    assert inspect.iscoroutinefunction(breaker(coroutine))
    assert inspect.isgeneratorfunction(breaker(generator))
    assert inspect.isasyncgenfunction(breaker(async_generator))
    assert not inspect.iscoroutinefunction(breaker(function))


def test_methods_can_be_decorated(make):
    breaker = make()

    class Client:
        @breaker
        def get(self):
            return self

        @breaker
        async def aget(self):
            return self

        @staticmethod
        @breaker
        def parse(text):
            return int(text)

    client = Client()
    assert client.get() is client
    assert asyncio.run(client.aget()) is client
    assert client.parse("42") == 42


def test_a_coroutine_is_never_taken_for_a_success(make):
    breaker = make(trip=ConsecutiveFailures(3))

    async def broken():
        raise ConnectionError

    class Client:
        async def __call__(self):
            await broken()

    async def main():
        for guarded in (
            functools.partial(breaker.call, broken),
            breaker(lambda: broken()),  # noqa: PLW0108 - not a coroutine function to the eye
            breaker(Client()),
        ):
            with pytest.raises(ConnectionError):
                await guarded()

    asyncio.run(main())
    assert breaker.state is State.OPEN


def test_a_coroutine_that_is_never_awaited_gives_the_probes_slot_back(make, clock):
    breaker = make()
    breaker.trip()
    clock.advance(10)

    async def never(): ...

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that it was never awaited
        breaker.call(never)
        gc.collect()

    assert breaker.acquire().success()


def test_the_call_that_trips_raises_its_own_error(make):
    breaker = make(trip=ConsecutiveFailures(1))
    own = ValueError("own")

    def call():
        raise own

    with pytest.raises(ValueError) as raised:
        breaker.call(call)

    assert raised.value is own
    assert own.__context__ is None
    assert breaker.state is State.OPEN


def test_the_block_of_a_guard_may_give_the_verdict(make):
    breaker = make(trip=ConsecutiveFailures(2))

    with breaker.guard() as permit:
        assert permit.failure()
    with contextlib.suppress(KeyError), breaker.guard() as permit:
        assert permit.success()
        raise KeyError

    assert breaker.snapshot().rules[0].value == 0
    assert breaker.snapshot().failed == 1


def test_a_guard_asks_when_it_is_entered(make, clock):
    breaker = make()
    breaker.trip()
    guard = breaker.guard()

    with pytest.raises(CircuitOpen), guard:
        pytest.fail("entered")
    clock.advance(10)
    with guard as permit:
        assert breaker.state is State.HALF_OPEN

    assert permit.settled
    assert breaker.state is State.CLOSED


def test_a_guard_serves_once(make):
    guard = make().guard()
    with guard:
        pass

    with pytest.raises(RuntimeError, match="once"), guard:
        pytest.fail("entered")


def test_a_guard_may_be_left_in_another_thread_and_context(make, clock):
    breaker = make()
    breaker.trip()
    clock.advance(10)
    guard = breaker.guard()

    contextvars.copy_context().run(guard.__enter__)
    thread = threading.Thread(target=guard.__exit__, args=(None, None, None))
    thread.start()
    thread.join()

    assert breaker.state is State.CLOSED


def test_the_refusal_of_an_inner_breaker_is_no_failure_of_the_outer_one(make):
    outer, inner = make(trip=ConsecutiveFailures(1)), make()
    inner.trip()

    with pytest.raises(CircuitOpen):
        outer.call(inner.call, int)

    assert outer.state is State.CLOSED
    assert outer.snapshot().failed == 0


def test_the_refusal_of_an_inner_breaker_counts_where_it_is_named(make):
    outer, inner = make(trip=ConsecutiveFailures(1), failure_on=CircuitOpen), make()
    inner.trip()

    with pytest.raises(CircuitOpen):
        outer.call(inner.call, int)

    assert outer.state is State.OPEN


def test_stacked_breakers_do_not_quote_themselves(make, clock):
    breaker = make(trip=ConsecutiveFailures(1), cooldown=10, failure_on=(OSError, CircuitOpen))
    other = make(trip=ConsecutiveFailures(1), cooldown=10, failure_on=(OSError, CircuitOpen))

    def broken():
        raise ConnectionError("down")

    guarded = breaker(other(broken))
    for _ in range(18):
        with contextlib.suppress(ConnectionError, CircuitOpen):
            guarded()
        other.trip()
        clock.advance(10)
        with contextlib.suppress(ConnectionError, CircuitOpen):
            breaker.call(other.call, broken)
    with pytest.raises(CircuitOpen) as refused:
        breaker.call(int)

    assert len(str(refused.value)) < 600
    assert len(repr(refused.value.last_failure)) < 600


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("style", ["decorator", "call", "guard"])
def test_an_interrupted_probe_gives_its_slot_back(breaker, clock, style, error):
    def interrupted():
        raise error

    breaker.trip()
    clock.advance(10)

    with pytest.raises(error):
        sync_style(style, breaker, interrupted)()

    assert breaker.state is State.HALF_OPEN
    assert breaker.acquire().success()


@pytest.mark.parametrize("style", ["decorator", "call", "acall", "guard"])
def test_a_coroutine_closed_half_way_gives_the_probes_slot_back(breaker, clock, style):
    class Pause:
        def __await__(self):
            yield

    async def pause():
        await Pause()

    breaker.trip()
    clock.advance(10)
    running = async_style(style, breaker, pause)()
    running.send(None)
    with pytest.raises(CircuitOpen):
        breaker.acquire()

    running.close()

    assert breaker.acquire().success()

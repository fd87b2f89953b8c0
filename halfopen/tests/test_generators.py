import asyncio
import contextlib
import contextvars
import gc
import threading

import pytest

from halfopen import CallFailed, CallIgnored, CallSucceeded, CircuitOpen, ConsecutiveFailures, State


@pytest.fixture
def breaker(make):
    return make(trip=ConsecutiveFailures(1))


@pytest.fixture
def told(breaker):
    told = []
    for event in (CallIgnored, CallFailed, CallSucceeded):
        breaker.on(event, lambda event: told.append(type(event)))
    return told


def numbers(stop, error=None):
    yield from range(stop)
    if error is not None:
        raise error
    return "end"


async def anumbers(stop, error=None):
    for number in range(stop):
        yield number
    if error is not None:
        raise error


@pytest.fixture(params=["decorator", "call"])
def guarded(request, breaker):
    if request.param == "decorator":
        return breaker(numbers)
    return lambda *args: breaker.call(numbers, *args)


@pytest.fixture(params=["decorator", "call"])
def aguarded(request, breaker):
    if request.param == "decorator":
        return breaker(anumbers)
    return lambda *args: breaker.call(anumbers, *args)


def collect(stream):
    async def main():
        return [item async for item in stream]

    return asyncio.run(main())


def test_a_generator_that_ends_is_a_success(guarded, told):
    assert list(guarded(3)) == [0, 1, 2]
    assert told == [CallSucceeded]


def test_a_generator_returns_its_value(guarded):
    def outer():
        return (yield from guarded(1))

    stream = outer()
    next(stream)
    with pytest.raises(StopIteration) as stopped:
        next(stream)
    assert stopped.value.value == "end"


def test_a_generator_that_fails_in_mid_stream_is_a_failure(guarded, breaker, told):
    with pytest.raises(ConnectionError):
        list(guarded(2, ConnectionError()))

    assert told == [CallFailed]
    assert breaker.state is State.OPEN


def test_a_generator_closed_early_is_neutral(guarded, told):
    stream = guarded(3)
    next(stream)
    stream.close()

    assert told == [CallIgnored]


def test_a_generator_forgotten_early_gives_the_probes_slot_back(guarded, breaker, clock):
    breaker.trip()
    clock.advance(10)
    stream = guarded(3)
    next(stream)
    with pytest.raises(CircuitOpen):
        breaker.acquire()

    del stream
    gc.collect()

    assert breaker.acquire().success()


def test_a_generator_that_never_starts_takes_no_probes_slot(guarded, breaker, clock):
    breaker.trip()
    clock.advance(10)

    guarded(3)
    gc.collect()

    assert breaker.acquire().success()


def test_a_decorated_generator_asks_with_its_first_item(breaker):
    breaker.trip()
    stream = breaker(numbers)(3)

    with pytest.raises(CircuitOpen):
        next(stream)


def test_what_is_sent_and_thrown_reaches_the_generator(breaker):
    def echo():
        received = yield "ready"
        try:
            yield received
        except KeyError:
            yield "caught"

    stream = breaker(echo)()
    assert next(stream) == "ready"
    assert stream.send("hello") == "hello"
    assert stream.throw(KeyError()) == "caught"
    stream.close()


def test_a_guarded_generator_serves_as_a_context_manager(breaker, told):
    @contextlib.contextmanager
    @breaker
    def session():
        yield "session"

    with session() as it:
        assert it == "session"
    with pytest.raises(ConnectionError), session():
        raise ConnectionError

    assert told == [CallSucceeded, CallFailed]


def test_an_async_generator_that_ends_is_a_success(aguarded, told):
    assert collect(aguarded(3)) == [0, 1, 2]
    assert told == [CallSucceeded]


def test_an_async_generator_that_fails_in_mid_stream_is_a_failure(aguarded, breaker, told):
    with pytest.raises(ConnectionError):
        collect(aguarded(2, ConnectionError()))

    assert told == [CallFailed]
    assert breaker.state is State.OPEN


def test_an_async_generator_that_fails_at_once_is_a_failure(aguarded, told):
    with pytest.raises(ConnectionError):
        collect(aguarded(0, ConnectionError()))

    assert told == [CallFailed]


def test_an_async_generator_closed_early_is_neutral_and_closed_inside(breaker, told):
    closed = []

    @breaker
    async def stream():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        async with contextlib.aclosing(stream()) as items:
            async for _ in items:
                break

    asyncio.run(main())
    assert told == [CallIgnored]
    assert closed == [True]


def test_an_async_generator_that_fails_while_it_is_closed_is_a_failure(breaker, told):
    @breaker
    async def stream():
        try:
            yield 1
        finally:
            raise ConnectionError

    async def main():
        items = stream()
        await anext(items)
        with pytest.raises(ConnectionError):
            await items.aclose()

    asyncio.run(main())
    assert told == [CallFailed]


def test_an_async_generator_cancelled_between_items_is_neutral(breaker, told):
    @breaker
    async def stream():
        yield 1
        await asyncio.Event().wait()

    async def consume():
        async for _ in stream():
            pass

    async def main():
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == [CallIgnored]


def test_an_async_generator_left_by_its_consumer_gives_the_probes_slot_back(
    aguarded, breaker, clock
):
    async def main():
        breaker.trip()
        clock.advance(10)
        async for _ in aguarded(3):
            with pytest.raises(CircuitOpen):
                breaker.acquire()
            break
        gc.collect()
        await asyncio.sleep(0)  # the loop closes what was left
        await asyncio.sleep(0)
        assert breaker.acquire().success()

    asyncio.run(main())


def test_a_decorated_async_generator_asks_with_its_first_item(breaker):
    breaker.trip()
    stream = breaker(anumbers)(3)

    with pytest.raises(CircuitOpen):
        collect(stream)


def test_what_is_sent_and_thrown_reaches_the_async_generator(breaker, told):
    @breaker
    async def echo():
        received = yield "ready"
        try:
            yield received
        except KeyError:
            yield "caught"

    async def main():
        stream = echo()
        assert await anext(stream) == "ready"
        assert await stream.asend("hello") == "hello"
        assert await stream.athrow(KeyError()) == "caught"
        with pytest.raises(ConnectionError):
            await stream.athrow(ConnectionError())

    asyncio.run(main())
    assert told == [CallFailed]


def test_an_async_generator_may_be_driven_from_several_tasks_and_contexts(breaker, told):
    marker = contextvars.ContextVar("marker", default="outside")

    async def main():
        stream = breaker(anumbers)(2)
        for name in ("first", "second"):
            context = contextvars.copy_context()
            context.run(marker.set, name)
            await asyncio.create_task(step(stream), context=context)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def step(stream):
        return await anext(stream)

    asyncio.run(main())
    assert told == [CallSucceeded]


def test_a_generator_may_be_driven_from_several_threads(breaker, told):
    stream = breaker(numbers)(2)
    items = []

    for _ in range(2):
        thread = threading.Thread(target=lambda: items.append(next(stream)))
        thread.start()
        thread.join()

    assert items == [0, 1]
    assert list(stream) == []
    assert told == [CallSucceeded]


def test_failure_result_is_asked_about_results_not_about_streams(make):
    breaker = make(failure_result=lambda _: True)

    assert list(breaker(numbers)(2)) == [0, 1]
    assert collect(breaker(anumbers)(2)) == [0, 1]

    assert breaker.snapshot().failed == 0

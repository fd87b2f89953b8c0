"""What runs on after a function has returned is counted when it ends."""

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import inspect
import types
import warnings

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


async def work(error=None):
    await asyncio.sleep(0)
    if error is not None:
        raise error
    return 42


@types.coroutine
def old_style(error=None):
    yield
    if error is not None:
        raise error
    return 42


class Awaitable:
    def __init__(self, error=None):
        self.error = error
        self.url = "an attribute"

    def __await__(self):
        return work(self.error).__await__()


class Request(Awaitable):
    """Like an HTTP client's: awaited, or entered with `async with`."""

    async def __aenter__(self):
        return await work(self.error)

    async def __aexit__(self, *_):
        self.url = "closed"


def in_executor(error=None):
    def blocking():
        if error is not None:
            raise error
        return 42

    return asyncio.get_running_loop().run_in_executor(None, blocking)


STARTS = {
    "coroutine": work,
    "task": lambda error=None: asyncio.ensure_future(work(error)),
    "executor": in_executor,
    "gather": lambda error=None: asyncio.gather(work(error)),
    "old style": old_style,
    "object": Awaitable,
    "request": Request,
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("style", ["call", "decorator", "acall"])
@pytest.mark.parametrize("warm", [True, False])
def test_an_awaitable_counts_when_it_ends(breaker, told, start, style, warm):
    if not warm:
        breaker.once(CallSucceeded, print)

    async def main():
        fn = STARTS[start]
        guarded = {
            "call": functools.partial(breaker.call, fn),
            "decorator": breaker(fn if inspect.isroutine(fn) else functools.partial(fn)),
            "acall": functools.partial(breaker.acall, fn),
        }[style]
        running = guarded()
        assert told == []
        result = await running
        assert result in (42, [42])
        await asyncio.sleep(0)
        assert told == [CallSucceeded]
        with pytest.raises(ConnectionError):
            await guarded(ConnectionError("down"))
        await asyncio.sleep(0)
        assert told == [CallSucceeded, CallFailed]

    asyncio.run(main())
    assert breaker.state is State.OPEN


@pytest.mark.parametrize("start", ["coroutine", "task", "object"])
def test_a_cancelled_awaitable_is_neutral(breaker, told, start):
    async def hang():
        await asyncio.Event().wait()

    class Waiting:
        def __await__(self):
            return hang().__await__()

    starts = {
        "coroutine": hang,
        "task": lambda: asyncio.ensure_future(hang()),
        "object": Waiting,
    }

    async def wait():
        await breaker.call(starts[start])

    async def main():
        task = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert told == [CallIgnored]


def test_a_task_stays_a_task_and_counts_though_nobody_awaits_it(breaker, told):
    async def main():
        task = breaker.call(lambda: asyncio.ensure_future(work(ConnectionError())))
        assert isinstance(task, asyncio.Task)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert told == [CallFailed]


def test_the_error_of_a_task_that_nobody_awaits_is_still_reported(breaker, told):
    reported = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
        breaker.call(lambda: asyncio.ensure_future(work(ConnectionError("down"))))
        await asyncio.sleep(0.01)
        gc.collect()

    asyncio.run(main())

    assert told == [CallFailed]
    assert [str(error) for error in reported] == ["down"]


def test_a_future_of_an_executor_counts_when_it_is_done(breaker, told):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = breaker.call(pool.submit, int, "42")
        assert future.result() == 42
        future = breaker.call(pool.submit, int, "nonsense")
        assert isinstance(future.exception(), ValueError)
        pool.submit(int).result()  # after the callback of the one before

    assert told == [CallSucceeded, CallFailed]
    breaker.reset()
    cancelled = concurrent.futures.Future()
    breaker.call(lambda: cancelled)
    assert cancelled.cancel()
    assert told[2:] == [CallIgnored]


def test_a_future_holds_the_probes_slot_until_it_is_done_or_forgotten(breaker, clock):
    breaker.trip()
    clock.advance(10)
    future = breaker.call(concurrent.futures.Future)
    with pytest.raises(CircuitOpen):
        breaker.acquire()

    del future
    gc.collect()

    assert breaker.acquire().success()


def test_a_request_may_be_entered(breaker, told):
    async def main():
        request = breaker.call(Request)
        assert request.url == "an attribute"
        async with request as answer:
            assert answer == 42
            assert told == [CallSucceeded]
        assert request.url == "closed"
        with pytest.raises(ConnectionError):
            async with breaker.call(Request, ConnectionError()):
                pytest.fail("entered")

    asyncio.run(main())
    assert told == [CallSucceeded, CallFailed]


def test_a_bad_result_of_an_awaitable_counts(make):
    breaker = make(trip=ConsecutiveFailures(1), failure_result=lambda result: result == 42)

    async def main():
        assert await breaker.call(STARTS["task"]) == 42
        await asyncio.sleep(0)

    asyncio.run(main())
    assert breaker.state is State.OPEN


@pytest.mark.parametrize("manager", [contextlib.contextmanager, contextlib.asynccontextmanager])
def test_a_context_manager_is_guarded_beneath_its_decorator(breaker, told, manager):
    if manager is contextlib.contextmanager:

        def session():
            yield 42

    else:

        async def session():
            yield 42

    with pytest.raises(TypeError, match="beneath @contextmanager or @asynccontextmanager"):
        breaker(manager(session))
    with pytest.raises(TypeError, match="beneath @contextmanager or @asynccontextmanager"):
        breaker.call(manager(session))
    assert told == [CallIgnored]

    async def enter():
        async with manager(breaker(session))() as it:
            assert it == 42

    if manager is contextlib.asynccontextmanager:
        asyncio.run(enter())
    else:
        with manager(breaker(session))() as it:
            assert it == 42
    assert told == [CallIgnored, CallSucceeded]


def test_acall_refuses_what_cannot_be_awaited(breaker, told):
    async def main():
        with pytest.raises(TypeError, match=r"int cannot be awaited: use call\(\)"):
            await breaker.acall(int, "42")
        with pytest.raises(TypeError, match="pass it and its arguments"):
            await breaker.acall(work())
        with pytest.raises(TypeError, match="pass it and its arguments"):
            await breaker.acall(asyncio.get_running_loop().create_future())
        with pytest.raises(ConnectionError):
            await breaker.acall(raises)

    def raises():
        raise ConnectionError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
    assert told == [CallIgnored, CallFailed]


@pytest.mark.parametrize("nothing", [None, 5, "text"])
def test_only_functions_are_called(breaker, told, nothing):
    with pytest.raises(TypeError, match=f"guards functions, and {type(nothing).__name__} is none"):
        breaker.call(nothing)
    with pytest.raises(TypeError, match="guards functions"):
        asyncio.run(breaker.acall(nothing))

    assert told == []


def test_a_loop_that_shuts_down_closes_a_guarded_stream_without_complaint(breaker, told):
    closed, complaints = [], []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    guarded, left = breaker(numbers), []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        for stream in (guarded(), breaker.call(numbers)):
            assert await anext(stream) == 1
            left.append(stream)

    asyncio.run(main())

    assert complaints == []
    assert closed == [True, True]
    assert told == [CallIgnored, CallIgnored]

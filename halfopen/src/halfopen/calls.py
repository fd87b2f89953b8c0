"""How functions of each kind are called under guard.

The fast paths are repeated in `function` and `coroutine_function`, because one more call would
cost as much as the breaker itself. See `Moment` for what they look at. They let go of the moment
before the call starts, because it leads to all that follow, however long the call takes.
"""

import contextlib
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import partial, wraps
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Self, TypeAlias

from halfopen.core import Core, Permit
from halfopen.state import OPEN, CircuitOpen

Function: TypeAlias = Callable[..., Any]

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_SIMPLE = frozenset({type(None), bool, int, float, str, bytes, list, dict, tuple, set})


class Guard:
    """Acquires a permit on entry and settles it on exit, unless the block has done so.

    It serves one `with` or `async with`, whose ends may lie in different threads and contexts.
    """

    __slots__ = ("_core", "_permit")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        self._serve_once()
        self._permit = self._core.acquire()
        return self._permit

    def __exit__(
        self, _type: object, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._permit is None or self._permit.settled:
            return
        if exc is None:
            self._permit.success()
        else:
            self._core.raised(self._permit, exc)

    async def __aenter__(self) -> Permit:
        self._serve_once()
        self._permit = await self._core.acquire_or_wait()
        return self._permit

    async def __aexit__(
        self, kind: object, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, traceback)

    def _serve_once(self) -> None:
        if self._permit is not None:
            raise RuntimeError("a guard serves once: call guard() again")


class Isolation:
    """Keeps a breaker from letting any call in, until it is released or its `with` block ends.

    Calling it releases it, too. To release it again does nothing.
    """

    __slots__ = ("_release",)

    def __init__(self, release: "Callable[[Isolation], None]") -> None:
        self._release = release

    def release(self) -> None:
        self._release(self)

    __call__ = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def decorate(core: Core, fn: Any) -> Any:
    """The guarded function, of the same kind. Raises `TypeError` for anything but a function."""
    if isinstance(fn, classmethod | staticmethod):
        return type(fn)(decorate(core, fn.__func__))
    check_callable(fn)
    if isinstance(fn, type) and fn.__flags__ & _HEAP_TYPE:
        raise TypeError(
            f"a breaker cannot decorate the class {fn.__name__}, which would be a class no more: "
            "decorate its methods, or make instances with breaker.call()"
        )
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_filename == contextlib.__file__:
        raise TypeError(_GUARD_BENEATH)
    guarded: Function
    if inspect.iscoroutinefunction(fn) or _is_old_style_coroutine(code):
        guarded = coroutine_function(core, fn)
    elif inspect.isgeneratorfunction(fn):
        guarded = generator_function(core, fn)
    elif inspect.isasyncgenfunction(fn):
        guarded = async_generator_function(core, fn)
    else:
        guarded = function(core, fn)
    return wraps(fn)(guarded)


_GUARD_BENEATH = (
    "a breaker cannot guard a context manager before it is entered: put the breaker beneath "
    "@contextmanager or @asynccontextmanager, on the generator function itself"
)


def check_callable(fn: Any) -> None:
    if callable(fn):
        return
    if inspect.isawaitable(fn):
        if isinstance(fn, Coroutine):
            fn.close()  # or Python would also warn that it was never awaited
        raise TypeError(
            "a breaker calls the function itself: pass it and its arguments, fetch, url, "
            "instead of fetch(url), which has begun already"
        )
    raise TypeError(
        f"a breaker guards functions, and {type(fn).__name__} is none: "
        "put the breaker on the function beneath"
    )


def _is_old_style_coroutine(code: Any) -> bool:
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def function(core: Core, fn: Function) -> Function:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        moment = core.moment
        period = moment.healthy
        if period is None or moment.following:
            until = moment.refuses_until
            if until and not moment.following and (wait := until - core.clock()) > 0:
                last_failure = moment.period.last_failure
                del moment
                core.rejected += 1
                raise CircuitOpen(core.name, OPEN, wait, last_failure)
            del moment
            return _permitted(core, fn, args, kwargs)
        del moment
        try:
            result = fn(*args, **kwargs)
        except BaseException as exc:
            core.raised(Permit(core, period), exc)
            raise
        if (type(result) in _SIMPLE or not runs_on(result)) and core.moment.healthy is period:
            return result
        return returned(core, Permit(core, period), result)

    return guarded


def _permitted(core: Core, fn: Function, args: Any, kwargs: Any) -> Any:
    permit = core.acquire()
    try:
        result = fn(*args, **kwargs)
    except BaseException as exc:
        core.raised(permit, exc)
        raise
    return returned(core, permit, result)


def coroutine_function(core: Core, fn: Function) -> Function:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        moment = core.moment
        period = moment.healthy
        if period is None or moment.following:
            until = moment.refuses_until
            if until and not moment.following and (wait := until - core.clock()) > 0:
                last_failure = moment.period.last_failure
                del moment
                core.rejected += 1
                raise CircuitOpen(core.name, OPEN, wait, last_failure)
            del moment
            return await awaiting(core, fn, *args, **kwargs)
        del moment
        try:
            result = await fn(*args, **kwargs)
        except BaseException as exc:
            core.raised(Permit(core, period), exc)
            raise
        if core.moment.healthy is period:
            return result
        core.returned(Permit(core, period), result)
        return result

    return guarded


async def awaiting(core: Core, fn: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function and await what it returns, whatever awaitable that is."""
    permit = await core.acquire_or_wait()
    try:
        running = fn(*args, **kwargs)
        if type(running) is not CoroutineType and not inspect.isawaitable(running):
            permit.ignore()
            raise TypeError(  # noqa: TRY301
                f"acall() awaits what the function returns, and {type(running).__name__} cannot "
                "be awaited: use call()"
            )
        result = await running
    except BaseException as exc:
        if not permit.settled:
            core.raised(permit, exc)
        raise
    core.returned(permit, result)
    return result


def generator_function(core: Core, fn: Function, admitted: Permit | None = None) -> Function:
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        permit = admitted or core.acquire()
        try:
            source = fn(*args, **kwargs)
            if type(permit) is Permit:
                result = yield from source
            else:
                result = yield from _timed(permit, source)
        except BaseException as exc:
            core.raised(permit, exc)
            raise
        permit.success()
        return result

    return guarded


def _timed(permit: Permit, source: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """`yield from source`, with its time stopped while the consumer has the item."""
    step = partial(source.send, None)
    while True:
        try:
            item = step()
        except StopIteration as end:
            return end.value
        permit.pause()
        try:
            sent = yield item
        except GeneratorExit:
            permit.resume()
            source.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - thrown in by the consumer, passed on
            permit.resume()
            step = partial(source.throw, exc)
        else:
            permit.resume()
            step = partial(source.send, sent)


def async_generator_function(core: Core, fn: Function, admitted: Permit | None = None) -> Function:
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        permit = admitted or await core.acquire_or_wait()
        try:
            source = fn(*args, **kwargs)
            step = _first_step(source)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                permit.pause()
                try:
                    sent = yield item
                except GeneratorExit:
                    permit.resume()
                    await source.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - thrown in by the consumer, passed on
                    permit.resume()
                    step = source.athrow(exc)
                else:
                    permit.resume()
                    step = source.asend(sent)
        except BaseException as exc:
            core.raised(permit, exc)
            raise
        permit.success()

    return guarded


def _first_step(source: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Start the generator without registering it with the event loop.

    A loop that shuts down closes all registered generators concurrently. The guarded generator is
    registered, and closes this one; closing it twice at the same time is an error.
    """
    hooks = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(None, None)
        return source.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def runs_on(result: object) -> bool:
    """Whether the result represents work that has not ended."""
    kind = type(result)
    return (
        hasattr(kind, "__await__")
        or hasattr(kind, "add_done_callback")
        or kind is GeneratorType
        or kind is AsyncGeneratorType
        or isinstance(result, contextlib.ContextDecorator | contextlib.AsyncContextDecorator)
    )


def returned(core: Core, permit: Permit, result: Any) -> Any:  # noqa: PLR0911 - one a kind
    """The result for the caller. If the work has not ended, it carries the permit."""
    if type(result) in _SIMPLE or not runs_on(result):
        core.returned(permit, result)
        return result
    if isinstance(result, CoroutineType):
        return _awaited(core, permit, result)
    if isinstance(result, GeneratorType):
        if _is_old_style_coroutine(result.gi_code):
            return _awaited(core, permit, result)
        return generator_function(core, lambda: result, permit)()
    if isinstance(result, AsyncGeneratorType):
        return async_generator_function(core, lambda: result, permit)()
    if hasattr(type(result), "add_done_callback"):
        result.add_done_callback(partial(_done, core, permit))
        return result
    if hasattr(type(result), "__await__"):
        return _Awaitable(core, permit, result)
    permit.ignore()
    raise TypeError(_GUARD_BENEATH)


async def _awaited(core: Core, permit: Permit, running: Any) -> Any:
    try:
        result = await running
    except BaseException as exc:
        core.raised(permit, exc)
        raise
    core.returned(permit, result)
    return result


def _done(core: Core, permit: Permit, future: Any) -> None:
    """Judge a future or task when it is done."""
    if future.cancelled():
        permit.ignore()
    elif (error := _error_of(future)) is not None:
        core.raised(permit, error)
    else:
        core.returned(permit, future.result())


def _error_of(future: Any) -> BaseException | None:
    """What the future raises.

    asyncio reports an error that nobody has retrieved, and `exception()` retrieves it. So a task
    that nobody awaits would fail in silence.
    """
    error = getattr(future, "_exception", None)
    return error if isinstance(error, BaseException) else future.exception()


class _Awaitable:
    """Wraps an awaitable, or an object for `async with`, such as a request of aiohttp.

    The call is judged when it has been awaited or entered. Everything else is delegated.
    """

    def __init__(self, core: Core, permit: Permit, inner: Any) -> None:
        self._core, self._permit, self._inner = core, permit, inner

    def __await__(self) -> Generator[Any, Any, Any]:
        return _awaited(self._core, self._permit, self._inner).__await__()

    async def __aenter__(self) -> Any:
        return await _awaited(self._core, self._permit, self._inner.__aenter__())

    async def __aexit__(self, *exc: object) -> Any:
        return await self._inner.__aexit__(*exc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

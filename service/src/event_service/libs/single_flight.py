import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FlightCancelled(Exception):
    """The shared call was cancelled, but not by its callers."""


class _Flight(dict["_Waiter[V]", None], Generic[K, V]):
    """The callers that wait for a call, in order of arrival; empty once it is over or abandoned."""

    __slots__ = ("context", "flights", "key", "task")

    context: Context
    task: asyncio.Task[None]

    def __init__(self, flights: "SingleFlight[K, V]", key: K) -> None:
        self.flights = flights
        self.key = key


class _Waiter(asyncio.Future[V]):
    """The place of one caller in a flight. To cancel it is to leave."""

    __slots__ = ("flight",)

    flight: _Flight[Any, V]

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self.flight.flights.leave(self)
        return cancelled


class SingleFlight(Generic[K, V]):
    """Callers that ask for the same key at the same time share one call.

    The call runs in a task of its own, in a copy of the first caller's context, and is
    cancelled when the last of its callers goes away; a caller that goes away earlier harms
    nobody. Its result or error goes to everyone who waited and is then forgotten: a later
    caller starts afresh, and so does one that arrives while an abandoned call still ends.

    All of them get the very same object. An error's traceback starts afresh for each, so it does
    not grow with their number. Use from one event loop only.
    """

    def __init__(self, on_shared: Callable[[Context], None] | None = None) -> None:
        """`on_shared` is called for each caller that joins a call already under way, with the
        context in which that call runs.
        """
        self._on_shared = on_shared
        self._flights: dict[K, _Flight[K, V]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Calls under way that somebody waits for and that may be joined."""
        return len(self._flights)

    def forget(self, key: K) -> None:
        """Let no further caller join the call under way, for example because data has changed.

        Callers that already wait still get its result.
        """
        self._flights.pop(key, None)

    def run(
        self, key: K, fn: Callable[..., Awaitable[V]], *args: object, **kwargs: object
    ) -> asyncio.Future[V]:
        """The result of `fn(*args, **kwargs)`, as the caller's own future; cancel it to leave.

        It raises what `fn` raises, and `FlightCancelled` if that is a `CancelledError`: a caller
        is never told that it was itself cancelled when it was not.
        """
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(self, key)
            flight.context = copy_context()
            # Not create_task: before Python 3.12 it formats a name that nobody reads, a tenth
            # of the cost of the whole.
            flight.task = asyncio.Task(
                self._fly(flight, fn, args, kwargs),
                loop=loop,
                name="single flight",
                context=flight.context,
            )
            self._flights[key] = flight
        elif self._on_shared is not None:
            self._on_shared(flight.context)
        waiter: _Waiter[V] = _Waiter(loop=loop)
        waiter.flight = flight
        flight[waiter] = None
        return waiter

    async def _fly(
        self,
        flight: _Flight[K, V],
        fn: Callable[..., Awaitable[V]],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        try:
            value = await fn(*args, **kwargs)
        except Exception as exc:
            self._land_with_error(flight, exc)
        except BaseException:
            self._land_with_error(flight, FlightCancelled())
            raise
        else:
            if flight:
                self._close(flight)
                for waiter in flight:
                    waiter.set_result(value)
                flight.clear()

    def _land_with_error(self, flight: _Flight[K, V], error: Exception) -> None:
        if flight:
            self._close(flight)
            for waiter in flight:
                waiter.set_exception(error)
            flight.clear()

    def leave(self, waiter: _Waiter[V]) -> None:
        """The caller whose place this was has gone away."""
        flight: _Flight[K, V] = waiter.flight
        del flight[waiter]
        if flight:
            return
        self._close(flight)
        task = flight.task
        # A cancelled task holds its last frame, and that frame the flight: without this a cycle
        # would be left to the garbage collector.
        del flight.task
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        task.cancel()

    def _close(self, flight: _Flight[K, V]) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

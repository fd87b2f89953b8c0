import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FlightCancelled(Exception):
    """The shared call was cancelled, but not by its callers."""


class _Flight(dict["_Waiter[V]", None], Generic[K, V]):
    """The callers that wait for a call, in arrival order; empty once it is over or abandoned."""

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

    The call runs in a task of its own, in a copy of the first caller's context, and is cancelled
    when its last caller leaves; a caller that leaves earlier does not affect the rest. The result
    or error goes to all waiting callers and is then forgotten: a later caller starts a new call,
    and so does one that arrives while an abandoned call still ends.

    All callers get the same object. An error's traceback is reset for each caller, so it does not
    grow with their number. Use from one event loop only.
    """

    def __init__(self, on_shared: Callable[[Context], None] | None = None) -> None:
        """`on_shared` is called for each caller that joins a call in progress, with the context of
        that call.
        """
        self._on_shared = on_shared
        self._flights: dict[K, _Flight[K, V]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Calls in progress that somebody waits for and that can be joined."""
        return len(self._flights)

    def forget(self, key: K) -> None:
        """Let no further caller join the call in progress, for example because data has changed.

        Callers that already wait still get its result.
        """
        self._flights.pop(key, None)

    def run(
        self, key: K, fn: Callable[..., Awaitable[V]], *args: object, **kwargs: object
    ) -> asyncio.Future[V]:
        """The result of `fn(*args, **kwargs)`, as a future of this caller; cancel it to leave.

        The future raises what `fn` raises, and FlightCancelled if that is a CancelledError: a
        caller never sees a cancellation that was not its own.
        """
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(self, key)
            flight.context = copy_context()
            # Not create_task: before Python 3.12 it formats a task name that nobody reads, a tenth
            # of the total cost.
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
        # A cancelled task keeps its last frame, and the frame keeps the flight: clearing it here
        # breaks the cycle without the garbage collector.
        del flight.task
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        task.cancel()

    def _close(self, flight: _Flight[K, V]) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FlightCancelled(Exception):
    """The shared call was cancelled by someone other than those who wait for it."""


class _Flight(Generic[V]):
    __slots__ = ("task", "waiters")

    task: asyncio.Task[None]
    waiters: dict[asyncio.Future[V], None]  # in order of arrival; empty once the flight has landed


class SingleFlight(Generic[K, V]):
    """Callers that ask for the same key at the same time share one call.

    The call runs in a task of its own, in a copy of the first caller's context, and is
    cancelled when the last of its callers goes away; a caller that goes away earlier harms
    nobody. Its result or error goes to everyone who waited and is then forgotten: a later
    caller starts afresh, and so does one that arrives while an abandoned call still ends.

    All callers get the very same value or exception object. Use from one event loop only.
    """

    def __init__(self, on_shared: Callable[[], None] | None = None) -> None:
        """`on_shared` is called for each caller that joins a call already under way."""
        self._on_shared = on_shared
        self._flights: dict[K, _Flight[V]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Calls under way that somebody waits for."""
        return len(self._flights)

    async def run(self, key: K, fn: Callable[[], Awaitable[V]]) -> V:
        """Raise what `fn` raises; `FlightCancelled` when the call was cancelled from within."""
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        waiter: asyncio.Future[V] = loop.create_future()
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.waiters = {waiter: None}
            flight.task = loop.create_task(self._fly(key, flight, fn))
        else:
            if self._on_shared is not None:
                self._on_shared()
            flight.waiters[waiter] = None
        try:
            return await waiter
        finally:
            if flight.waiters:
                self._leave(key, flight, waiter)
            # An error's traceback holds this frame; the frame must not hold the error.
            del flight, waiter

    async def _fly(self, key: K, flight: _Flight[V], fn: Callable[[], Awaitable[V]]) -> None:
        try:
            value = await fn()
        except Exception as exc:
            self._land_with_error(key, flight, exc)
        except BaseException:
            self._land_with_error(key, flight, FlightCancelled())
            raise
        else:
            for waiter in self._landed(key, flight):
                waiter.set_result(value)

    def _land_with_error(self, key: K, flight: _Flight[V], error: Exception) -> None:
        for waiter in self._landed(key, flight):
            waiter.set_exception(error)
            # A caller cancelled at this very moment never looks; that is no reason to warn.
            waiter.exception()

    def _landed(self, key: K, flight: _Flight[V]) -> list[asyncio.Future[V]]:
        if self._flights.get(key) is flight:
            del self._flights[key]
        waiters, flight.waiters = flight.waiters, {}
        return [waiter for waiter in waiters if not waiter.done()]

    def _leave(self, key: K, flight: _Flight[V], waiter: asyncio.Future[V]) -> None:
        del flight.waiters[waiter]
        if flight.waiters:
            return
        del self._flights[key]
        self._abandoned.add(flight.task)
        flight.task.add_done_callback(self._abandoned.discard)
        flight.task.cancel()

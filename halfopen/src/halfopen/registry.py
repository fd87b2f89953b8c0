from collections.abc import Callable, Iterator
from threading import Lock
from typing import Generic, TypeVar

from halfopen import checks
from halfopen.breaker import CircuitBreaker
from halfopen.listeners import logger
from halfopen.state import State

K = TypeVar("K")


class BreakerRegistry(Generic[K]):
    """One breaker for each key, say a host, made by `factory(key)` when first asked for.

    With `max_size`, a new breaker beyond it pushes out the closed one that was not asked for the
    longest. If none is closed, one that is open or half-open goes, an isolated one last, and a
    warning is logged: what it knew of an outage is lost. A call in flight on a breaker that was
    pushed out ends as if nothing had happened.

    Threads: everybody gets the same breaker for a key. `factory` runs without a lock being held, so
    two threads may run it for the same key at once; the first breaker stays.
    """

    def __init__(self, factory: Callable[[K], CircuitBreaker], max_size: int | None = None) -> None:
        checks.function("factory", factory)
        if max_size is not None:
            checks.count("max_size", max_size)
        self._factory = factory
        self._max_size = max_size
        self._breakers: dict[K, CircuitBreaker] = {}  # the one asked for last comes last
        self._lock = Lock()

    def __getitem__(self, key: K) -> CircuitBreaker:
        with self._lock:
            found = self._touch(key)
        if found is not None:
            return found
        made = self._factory(key)
        with self._lock:
            found = self._touch(key)
            if found is not None:
                return found
            pushed_out = self._make_room()
            self._breakers[key] = made
        if pushed_out is not None and pushed_out.state is not State.CLOSED:
            logger.warning("%r made room for another", pushed_out)
        return made

    def __contains__(self, key: object) -> bool:
        return key in self._breakers

    def __len__(self) -> int:
        return len(self._breakers)

    def __iter__(self) -> Iterator[K]:
        return iter([key for key, _ in self.items()])

    def items(self) -> list[tuple[K, CircuitBreaker]]:
        """Keys and breakers as they are now, the one not asked for the longest first."""
        with self._lock:
            return list(self._breakers.items())

    def _touch(self, key: K) -> CircuitBreaker | None:
        found = self._breakers.get(key)
        if found is not None and self._max_size is not None:
            self._breakers[key] = self._breakers.pop(key)
        return found

    def _make_room(self) -> CircuitBreaker | None:
        if self._max_size is None or len(self._breakers) < self._max_size:
            return None
        items = self._breakers.items()
        closed = (item for item in items if item[1].state is State.CLOSED)
        key, pushed_out = next(closed, None) or min(
            items, key=lambda item: item[1].state is State.ISOLATED
        )
        del self._breakers[key]
        return pushed_out

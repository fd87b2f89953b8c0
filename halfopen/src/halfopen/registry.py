from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Generic, TypeVar

from halfopen import checks
from halfopen.breaker import CircuitBreaker
from halfopen.events import logger
from halfopen.state import CLOSED, ISOLATED

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
        self._breakers: OrderedDict[K, CircuitBreaker] = OrderedDict()
        self._lock = Lock()

    def __getitem__(self, key: K) -> CircuitBreaker:
        return self._find(key) or self._add(key, self._factory(key))

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

    def _find(self, key: K) -> CircuitBreaker | None:
        with self._lock:
            if key in self._breakers:
                self._breakers.move_to_end(key)
            return self._breakers.get(key)

    def _add(self, key: K, made: CircuitBreaker) -> CircuitBreaker:
        with self._lock:
            kept = self._breakers.setdefault(key, made)
            self._breakers.move_to_end(key)
            if self._max_size is None or len(self._breakers) <= self._max_size:
                return kept
            others = [item for item in self._breakers.items() if item[0] != key]
            closed = (item for item in others if item[1].state is CLOSED)
            leaving, breaker = next(closed, None) or min(
                others, key=lambda item: item[1].state is ISOLATED
            )
            del self._breakers[leaving]
        if breaker.state is not CLOSED:
            logger.warning("%r made room for another", breaker)
        return kept

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import RLock
from typing import Any, Generic, TypeVar

from halfopen import checks
from halfopen.breaker import CircuitBreaker, Event, kinds_to_hear
from halfopen.state import CLOSED, ISOLATED

K = TypeVar("K")
D = TypeVar("D")
E = TypeVar("E", bound=Event)
logger = logging.getLogger("halfopen")


class BreakerRegistry(Generic[K]):
    """One breaker for each key, say a host, made by `factory(key)` when first asked for.

    With `max_size`, a new breaker beyond it pushes out the closed one that was not asked for the
    longest. If none is closed, one that is open or half-open goes, an isolated one last, and a
    warning is logged: what it knew of an outage is lost. A call in flight on a breaker that was
    pushed out ends as if nothing had happened.

    Threads: everybody gets the same breaker for a key. `factory` runs without a lock being held, so
    two threads may run it for the same key at once; the first breaker stays. A thread that
    interrupts itself (a signal handler, a finalizer) never waits; a forked child has its own lock.
    """

    def __init__(self, factory: Callable[[K], CircuitBreaker], max_size: int | None = None) -> None:
        checks.function("factory", factory)
        if max_size is not None:
            checks.count("max_size", max_size)
        self._factory = factory
        self._max_size = max_size
        self._breakers: OrderedDict[K, CircuitBreaker] = OrderedDict()
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._new_lock()
        _registries.add(self)

    def _new_lock(self) -> None:
        # The thread that holds it may come again, between any two steps, and finds all in order.
        self._lock = RLock()

    def __getitem__(self, key: K) -> CircuitBreaker:
        return self._find(key) or self._add(key, self._factory(key))

    def get(self, key: K, default: D | None = None) -> CircuitBreaker | D | None:
        """The breaker of that key, if there is one. Does not create one or count as a use."""
        with self._lock:
            found = self._breakers.get(key)
        return default if found is None else found

    def pop(self, key: K, default: D | None = None) -> CircuitBreaker | D | None:
        """Forget it, and return it if there was one. The next to ask gets a new one."""
        with self._lock:
            found = self._breakers.pop(key, None)
        if found is None:
            return default
        self._leave(found)
        return found

    def _leave(self, breaker: CircuitBreaker) -> None:
        for subscription in self._subscriptions:
            subscription.leave(breaker)

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

    def values(self) -> list[CircuitBreaker]:
        """The breakers as they are now, in the same order."""
        return [breaker for _, breaker in self.items()]

    def on(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        """Call `listener` with every such event of every breaker, also of those to come.

        Returns the function that ends it. As `CircuitBreaker.on`, but for one breaker the events of
        another may come at the same time.
        """
        kinds_to_hear(event, listener)
        subscription = _Subscription(event, listener)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
        for breaker in self.values():
            subscription.join(breaker)

        def leave() -> None:
            with self._lock:
                left = (each for each in self._subscriptions if each is not subscription)
                self._subscriptions = tuple(left)
            subscription.end()

        return leave

    def _find(self, key: K) -> CircuitBreaker | None:
        with self._lock:
            found = self._breakers.get(key)
            if found is not None and self._max_size is not None:
                try:
                    self._breakers.move_to_end(key)
                except KeyError:  # a signal handler has popped it meanwhile
                    return None
            return found

    def _add(self, key: K, made: CircuitBreaker) -> CircuitBreaker:
        leaving = None
        with self._lock:
            kept = self._breakers.setdefault(key, made)
            if self._max_size is not None and len(self._breakers) > self._max_size:
                leaving = self._make_room(key)
        if kept is made:
            for subscription in self._subscriptions:
                subscription.join(made)
        if leaving is not None:
            self._leave(leaving)
            if leaving.state is not CLOSED:
                logger.warning("%r made room for another", leaving)
        return kept

    def _make_room(self, new: K) -> CircuitBreaker | None:
        """Push one out. Most of the time it is the first, so that nobody looks through them all."""
        while True:
            try:
                leaving = self._least_missed(new)
            except RuntimeError:  # a signal handler has added or popped one meanwhile
                continue
            return self._breakers.pop(leaving, None)

    def _least_missed(self, new: K) -> K:
        worst: K = new
        for key, breaker in self._breakers.items():
            state = breaker.state
            if key == new:
                continue
            if state is CLOSED:
                return key
            if worst == new or (state is not ISOLATED and self._breakers[worst].state is ISOLATED):
                worst = key
        return worst


class _Subscription:
    """One listener at many breakers."""

    def __init__(self, event: type[Any], listener: Callable[[Any], object]) -> None:
        self._event = event
        self._listener = listener
        self._leaves: weakref.WeakKeyDictionary[CircuitBreaker, Callable[[], None]] = (
            weakref.WeakKeyDictionary()
        )
        self._ended = False

    def join(self, breaker: CircuitBreaker) -> None:
        leave = breaker.on(self._event, self._listener)
        if self._leaves.setdefault(breaker, leave) is not leave or self._ended:
            leave()

    def leave(self, breaker: CircuitBreaker) -> None:
        with suppress(KeyError):
            self._leaves.pop(breaker)()

    def end(self) -> None:
        self._ended = True
        for breaker in list(self._leaves):
            self.leave(breaker)


_registries: "weakref.WeakSet[BreakerRegistry[Any]]" = weakref.WeakSet()


def _renew_locks() -> None:  # pragma: no cover - runs in forked children
    for registry in list(_registries):
        registry._new_lock()  # noqa: SLF001 - right above


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows cannot fork
    # A thread that held a lock when the process forked is not there to release it.
    os.register_at_fork(after_in_child=_renew_locks)

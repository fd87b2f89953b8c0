import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakValueDictionary

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Fetch:
    """Proof that no invalidation came between the start of a fetch and its end."""

    __slots__ = ("__weakref__",)


class Entry(NamedTuple, Generic[V]):
    value: V
    age: float  # seconds
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Stored(Generic[V]):
    value: V
    at: float
    size: int


class StaleCache(Generic[K, V]):
    """Values are fresh for `ttl` seconds and usable when the source fails for `stale_for` more
    (RFC 5861, stale-if-error); the caller decides whether to serve a stale value.

    It holds at most `max_entries` values, with a total size of at most `max_size`; the least
    recently used are removed first. Use from one thread.
    """

    def __init__(
        self,
        ttl: float,
        stale_for: float,
        max_entries: int,
        clock: Callable[[], float],
        *,
        max_size: float = math.inf,
    ) -> None:
        self.ttl = ttl
        self._stale_for = stale_for
        self._max_entries = max_entries
        self._max_size = max_size
        self._clock = clock
        self._size = 0
        self._entries: OrderedDict[K, _Stored[V]] = OrderedDict()
        self._fetches: WeakValueDictionary[K, Fetch] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> Entry[V] | None:
        stored = self._entries.get(key)
        if stored is None:
            return None
        age = self._clock() - stored.at
        if age >= self.ttl + self._stale_for:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return Entry(stored.value, age, age < self.ttl)

    def begin(self, key: K) -> Fetch:
        """Call this before fetching a value, and pass the token to `put` with the value."""
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = Fetch()
        return fetch

    def put(self, key: K, value: V, token: Fetch | None = None, *, size: int = 0) -> None:
        """Store a value, unless it was fetched (see `begin`) before an invalidation of its key."""
        if token is not None and self._fetches.get(key) is not token:
            return
        self._remove(key)
        if size > self._max_size:
            return
        self._entries[key] = _Stored(value, self._clock(), size)
        self._size += size
        while len(self._entries) > self._max_entries or self._size > self._max_size:
            _, evicted = self._entries.popitem(last=False)
            self._size -= evicted.size

    def invalidate(self, key: K) -> None:
        """Remove the value, and ignore the results of fetches in progress."""
        self._remove(key)
        self._fetches.pop(key, None)

    def _remove(self, key: K) -> None:
        stored = self._entries.pop(key, None)
        if stored is not None:
            self._size -= stored.size

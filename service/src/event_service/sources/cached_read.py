from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from event_service import context
from event_service.context import CacheStatus
from event_service.errors import Overloaded, UpstreamFault, UpstreamNotFound
from event_service.libs.stale_cache import Entry, StaleCache
from event_service.sources.policy import Observer, Read
from halfopen import CircuitOpen

T = TypeVar("T")

# By operation and key, so that one bound holds for all that is kept.
ReplyCache: TypeAlias = StaleCache[tuple[str, str], Any]

# What an upstream that is down looks like. A 4xx is its word, and ours to pass on.
_UPSTREAM_DOWN = (UpstreamFault, CircuitOpen, Overloaded)
_encode = msgspec.json.Encoder().encode


class CachedRead(Generic[T]):
    """A read behind a cache: what is fresh is not asked for again.

    When the upstream is down and there is a stale value it is served after one attempt at most,
    and at once while the circuit is open. Errors are never kept. A fetch that was under way when
    its key was invalidated keeps nothing. The call context's `cache_status`, if set, is told what
    became of each read.
    """

    def __init__(
        self,
        read: Callable[[Callable[[str], Awaitable[T]]], Read[T]],
        fetch: Callable[[str], Awaitable[T]],
        *,
        operation: str,
        cache: ReplyCache,
        observer: Observer,
    ) -> None:
        """`read` makes the policy of reads with `fetch`, which runs inside the single flight."""
        self._fetch = fetch
        self._operation = operation
        self._cache = cache
        self._observer = observer
        self._read = read(self._fetch_and_keep)

    async def __call__(self, key: str = "") -> T:
        """Raise what `Read` raises, unless the upstream is down and there is a stale value."""
        place = (self._operation, key)
        entry = self._cache.get(place)
        if entry is not None and entry.fresh:
            return self._serve(entry)
        status = _status()
        try:
            value = await self._read(key, attempts=None if entry is None else 1)
        except _UPSTREAM_DOWN as error:
            if isinstance(error, UpstreamFault) and status is not None:
                status.forwarded(stale=entry is not None)
            # Asked again: it may have been invalidated, or have got too old to be served.
            entry = self._cache.get(place)
            if entry is None:
                raise
            return self._serve(entry)
        if status is not None:
            status.forwarded(stale=entry is not None)
        return value

    def forget(self, key: str = "") -> None:
        """Whoever asks from now on gets nothing that was fetched, or begun to be, before."""
        self._cache.invalidate((self._operation, key))
        self._read.forget(key)

    def _serve(self, entry: Entry[Any]) -> T:
        self._observer.cache_hit(self._operation)
        status = _status()
        if status is not None:
            status.hit(age=entry.age, ttl=self._cache.ttl - entry.age)
        value: T = entry.value
        return value

    async def _fetch_and_keep(self, key: str) -> T:
        place = (self._operation, key)
        token = self._cache.begin(place)
        try:
            value = await self._fetch(key)
        except UpstreamNotFound:
            self._cache.invalidate(place)
            raise
        self._cache.put(place, value, token, size=len(_encode(value)))
        return value


def _status() -> CacheStatus | None:
    call = context.current.get()
    return None if call is None else call.cache_status

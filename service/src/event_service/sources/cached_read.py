import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from event_service import context
from event_service.context import CacheStatus
from event_service.errors import (
    DeadlineExceeded,
    Overloaded,
    UpstreamFault,
    UpstreamNotFound,
    UserNotFound,
)
from event_service.libs.stale_cache import Entry
from event_service.signals import CacheHit
from event_service.sources.policy import Policies, Read, ReplyCache
from halfopen import CircuitOpen

T = TypeVar("T")

# Errors that mean the upstream is down. A 4xx is an answer, so it is passed on.
_UPSTREAM_DOWN = (UpstreamFault, CircuitOpen, Overloaded, DeadlineExceeded, TimeoutError)
_encode = msgspec.json.Encoder().encode


class CachedRead(Generic[T]):
    """A read behind a cache: a fresh value is served without a call.

    With a stale value there is only one attempt. If it fails because the upstream is down, the
    stale value is served: at once while the circuit is open, and always before the deadline.
    Errors are never cached. The result of a fetch is not cached if its key was invalidated
    meanwhile. The outcome of each read goes to `cache_status` of the call context, if that is set.
    """

    def __init__(
        self,
        operation: str,
        fetch: Callable[..., Awaitable[T]],
        policies: Policies,
        cache: ReplyCache,
    ) -> None:
        self._operation = operation
        self._fetch = fetch
        self._cache = cache
        self._emit = policies.emit
        self._limits = policies.limits
        self._read = Read(operation, self._fetch_and_keep, policies)

    def __call__(self, *key: str) -> asyncio.Future[T]:
        """Raise what `Read` raises, unless the upstream is down and there is a stale value."""
        entry = self._cache.get((self._operation, *key))
        if entry is None:
            asked = self._read(*key)
            status = _status()
            if status is not None:
                asked.add_done_callback(partial(_tell_missed, status))
            return asked
        if entry.fresh:
            served: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            served.set_result(self._serve(entry))
            return served
        return asyncio.ensure_future(self._ask_with_stale(*key))

    def forget(self, *key: str) -> None:
        """Reads that start after this never see older data."""
        self._cache.invalidate((self._operation, *key))
        self._read.forget(*key)

    async def _ask_with_stale(self, *key: str) -> T:
        """Ask the source; if it fails, serve a stale value if there is one."""
        status = _status()
        try:
            with self._limits(context.answer_by()):
                value = await self._read(*key, attempts=1)
        except _UPSTREAM_DOWN as error:
            if status is not None and isinstance(error, UpstreamFault):
                status.forwarded(stale=True)
            # Look again: the value may have been invalidated, or become too old to serve.
            entry = self._cache.get((self._operation, *key))
            if entry is None:
                raise
            return self._serve(entry)
        if status is not None:
            status.forwarded(stale=True)
        return value

    def _serve(self, entry: Entry[Any]) -> T:
        self._emit(CacheHit(self._operation))
        status = _status()
        if status is not None:
            status.hit(age=entry.age, ttl=self._cache.ttl - entry.age)
        value: T = entry.value
        return value

    async def _fetch_and_keep(self, *key: str) -> T:
        place = (self._operation, *key)
        token = self._cache.begin(place)
        try:
            value = await self._fetch(*key)
        except (UpstreamNotFound, UserNotFound):
            self._cache.invalidate(place)
            raise
        self._cache.put(place, value, token, size=len(_encode(value)))
        return value


def _tell_missed(status: CacheStatus, asked: asyncio.Future[Any]) -> None:
    """Record a miss, unless the circuit or one of our limits refused the call."""
    if asked.cancelled():
        return
    error = asked.exception()
    if error is None or isinstance(error, UpstreamFault):
        status.forwarded(stale=False)


def _status() -> CacheStatus | None:
    call = context.current.get()
    return None if call is None else call.cache_status

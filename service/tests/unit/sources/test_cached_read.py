from contextlib import nullcontext

import pytest

from event_service import context
from event_service.context import CacheStatus, CallContext
from event_service.errors import Overloaded, UpstreamFailed
from event_service.libs.stale_cache import StaleCache
from event_service.sources.cached_read import CachedRead
from event_service.sources.policy import ReplyCache

from .guards import policies

pytestmark = pytest.mark.anyio


class Source:
    """Answers with how often it was asked, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.failing = False

    async def __call__(self, key: str) -> str:
        self.asked += 1
        if self.failing:
            raise UpstreamFailed("op", "It failed.", reason="test")
        return f"{key} {self.asked}"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cached(source: Source, clock: Clock, *, max_size: int = 1000) -> CachedRead[str]:
    cache: ReplyCache = StaleCache(10.0, 60.0, 100, clock, max_size=max_size)
    return CachedRead("op", source, policies(cache=cache, clock=clock), cache)


async def test_it_works_for_callers_without_a_request():
    source, clock = Source(), Clock()
    read = cached(source, clock)
    assert [await read("k"), await read("k")] == ["k 1", "k 1"]

    clock.now = 11
    source.failing = True
    assert await read("k") == "k 1"
    with pytest.raises(UpstreamFailed):
        await read("other")


async def test_each_key_is_kept_for_itself():
    read = cached(Source(), Clock())
    assert [await read("a"), await read("b"), await read("a")] == ["a 1", "b 2", "a 1"]


async def test_what_is_too_big_as_json_is_not_kept():
    read = cached(Source(), Clock(), max_size=4)
    assert [await read("k"), await read("k")] == ["k 1", "k 2"]


async def test_a_forgotten_key_is_asked_for_again():
    read = cached(Source(), Clock())
    await read("k")
    read.forget("k")
    assert await read("k") == "k 2"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, "event-service; fwd=miss"),
        (UpstreamFailed("op", "It failed.", reason="test"), "event-service; fwd=miss"),
        (Overloaded("No room."), None),
    ],
)
async def test_a_miss_is_told_if_the_source_was_asked(error: Exception | None, told: str | None):
    async def fetch(key: str) -> str:
        if error is not None:
            raise error
        return key

    cache: ReplyCache = StaleCache(10.0, 60.0, 100, Clock())
    read = CachedRead("op", fetch, policies(cache=cache), cache)
    call = CallContext("request")
    status = call.cache_status = CacheStatus("event-service")
    context.current.set(call)
    with pytest.raises(type(error)) if error is not None else nullcontext():
        await read("k")

    headers = dict(status.headers())
    assert headers.get(b"cache-status") == (None if told is None else told.encode())

"""The way to Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from halfopen.redis import scripts

# A connection attempt or a reply that takes longer counts as lost; in seconds.
PATIENCE = 1.0


class LinkLost(Exception):
    """Redis could not be reached, did not answer in time, or refused."""


class Link(Protocol):
    """Runs the scripts, and hears what they publish. Every method raises LinkLost."""

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """What one of the four scripts answers: "report", "claim", "settle" or "look"."""

    def messages(self, channel: str) -> Any:
        """An async context manager, entered once subscribed, that gives an async iterator of what
        is published.
        """

    async def eviction_policy(self) -> str:
        """What Redis does when its memory is full, such as `noeviction`."""

    async def forget(self, nodes: str, node: str) -> None:
        """Take the node off the list of those alive."""

    async def close(self) -> None: ...


class RedisLink:
    """`url` is a `redis://` or `rediss://` address, as redis-py takes it."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for an address, or an option in it, that redis-py does not know."""
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=PATIENCE,
            # Who waits decides how long: a verdict may take its time, a claim may not.
            retry=Retry(NoBackoff(), 0),
        )
        pool: Any = self._redis.connection_pool
        try:
            pool.make_connection()  # connects to nothing yet
        except TypeError:
            raise ValueError("the address has an option that redis-py does not know") from None
        self._scripts = {
            "report": self._redis.register_script(scripts.REPORT),
            "claim": self._redis.register_script(scripts.CLAIM),
            "settle": self._redis.register_script(scripts.SETTLE),
            "look": self._redis.register_script(scripts.LOOK),
        }

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        try:
            answer: list[Any] = await self._scripts[script](keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise LinkLost(str(error)) from error
        return answer

    @asynccontextmanager
    async def messages(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(channel)
            yield self._heard(pubsub)
        except (RedisError, OSError) as error:
            raise LinkLost(str(error)) from error
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _heard(self, pubsub: Any) -> AsyncIterator[str]:
        try:
            async for message in pubsub.listen():
                yield message["data"]
        except (RedisError, OSError) as error:
            raise LinkLost(str(error)) from error

    async def eviction_policy(self) -> str:
        try:
            return str((await self._redis.info("memory")).get("maxmemory_policy", "noeviction"))
        except (RedisError, OSError) as error:
            raise LinkLost(str(error)) from error

    async def forget(self, nodes: str, node: str) -> None:
        try:
            await self._redis.zrem(nodes, node)
        except (RedisError, OSError) as error:
            raise LinkLost(str(error)) from error

    async def close(self) -> None:
        await self._redis.aclose()

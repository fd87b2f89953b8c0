"""The node that this process is among all nodes of the same Redis."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from limits import RateLimitItem
from redis.asyncio import Redis
from redis.exceptions import RedisError

from event_service.cluster.rate_leases import LEASE, PATIENCE, LeasedRates
from event_service.signals import ClusterSeen, Emit
from halfopen import CircuitBreaker
from halfopen.redis import RedisCircuits

# Seconds between the latest end of a canary's attempt and the end of its lease.
LEASE_MARGIN = 0.5
TELL_EVERY = 1.0  # seconds


class Membership:
    """Shares circuits and rates with the other nodes while `run` runs.

    Nothing here fails if Redis does: each node then goes on alone and logs it.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        quorum: int,
        attempt_timeout: float,
        node: str | None = None,
        clock: Callable[[], float],
    ) -> None:
        """`attempt_timeout`: maximum seconds of an upstream call. `node` must be unique to the
        process; None generates a name.
        """
        self._circuits = RedisCircuits(
            url, name, quorum=quorum, lease=attempt_timeout + LEASE_MARGIN, node=node, clock=clock
        )
        self._redis: Redis = Redis.from_url(url, socket_connect_timeout=PATIENCE)
        self._lease = self._redis.register_script(LEASE)
        self._prefix = f"{{{name}}}"
        self._clock = clock

    @property
    def node(self) -> str:
        return self._circuits.node

    def rates(self, rates: Sequence[RateLimitItem], *, max_windows: int) -> LeasedRates:
        return LeasedRates(
            rates,
            run=self._run_lease,
            prefix=self._prefix,
            nodes=self,
            max_windows=max_windows,
            clock=self._clock,
        )

    def joined(self) -> bool:
        return self._circuits.joined

    def count(self) -> int:
        return self._circuits.figures().nodes

    async def run(self, breakers: Iterable[CircuitBreaker], emit: Emit) -> None:
        """Join the breakers with those of the other nodes until cancelled."""
        emit(ClusterSeen(self._circuits.figures()))
        async with self._redis, self._circuits:
            for breaker in breakers:
                self._circuits.join(breaker)
            while True:
                emit(ClusterSeen(self._circuits.figures()))
                await asyncio.sleep(TELL_EVERY)

    async def _run_lease(self, key: str, arguments: Sequence[Any]) -> list[int]:
        try:
            answer: list[int] = await self._lease(keys=[key], args=list(arguments))
        except RedisError as error:
            raise OSError(str(error)) from error
        return answer

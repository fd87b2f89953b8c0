"""What the outbox needs from its database."""

from collections.abc import Sequence
from typing import Protocol

from event_service.outbox.records import (
    Accepted,
    Claim,
    Delivery,
    Figures,
    NewDelivery,
    Progress,
    State,
    Step,
)

# Seconds for which a worker owns a lane after it claims or renews it.
LEASE = 30.0
# Events to read ahead for a lane.
AHEAD = 32
# Bytes. With less free space on the disk, nothing is accepted.
LEAST_FREE = 64 * 1024 * 1024
# Seconds for which refused and dead deliveries are kept.
KEEP_FAILED = 30 * 86_400.0
PURGE_BATCH = 1_000


class StoreFailed(Exception):
    """The database failed or cannot be reached. The data may or may not have been written."""


class StoreUnusable(Exception):
    """The database cannot be used as configured, and trying again cannot help; says why."""


class Store(Protocol):
    """Durable: when a call returns, its data is on disk. Atomic: each call is one transaction.

    Every call may raise StoreFailed. Any number of processes may share a database; use one object
    from one event loop.
    """

    async def open(self) -> list[str]:
        """Connect and migrate; returns the names of the applied migrations.

        May be called again after StoreFailed. Raises StoreUnusable if trying again cannot help.
        """

    async def close(self) -> None: ...

    async def accept(self, entries: Sequence[NewDelivery]) -> list[Accepted | Exception]:
        """Queue the entries, in this order for each user; returns one result per entry.

        If an entry's key exists: the existing delivery, or IdempotencyKeyReused if that has another
        fingerprint. If there is no room: Overloaded.
        """

    async def claim(self, owner: str, limit: int) -> list[Claim]:
        """Claim at most `limit` due lanes without an owner, for LEASE seconds."""

    async def queued(self, claim: Claim) -> Claim:
        """The claim with the events that are queued in its lane now."""

    async def advance(self, steps: Sequence[Step]) -> list[Progress]:
        """Apply the steps, at most one for each lane."""

    async def find(self, delivery_id: str) -> Delivery | None: ...

    async def figures(self) -> Figures: ...

    async def page(
        self, *, state: State | None, user_id: str | None, before: int | None, limit: int
    ) -> list[Delivery]:
        """Newest first; `before` is the `seq` of the previous page's last delivery."""

    async def retry(self, delivery_id: str) -> bool:
        """Queue a refused or dead delivery again, at its old place. False if it is neither."""

    async def drop(self, delivery_id: str) -> bool:
        """Delete a delivery in any state. False if there is none. A current attempt continues."""

    async def purge(self, *, keep: float) -> int:
        """Delete one batch of old deliveries, and return its size. Also deletes idle lanes.

        Old means delivered `keep` seconds ago, or refused or dead for KEEP_FAILED seconds.
        """

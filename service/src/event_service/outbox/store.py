"""What the outbox needs of the database behind it."""

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

# Seconds that a lane is its owner's after each sign of life.
LEASE = 30.0
# Events that are read ahead for a lane.
AHEAD = 32
# Free bytes below which nothing more is accepted.
LEAST_FREE = 64 * 1024 * 1024
# Events that were refused or are dead are kept so many seconds.
KEEP_FAILED = 30 * 86_400.0
PURGE_BATCH = 1_000


class StoreFailed(Exception):
    """The database failed or cannot be reached. What was to be written may be there or not."""


class StoreUnusable(Exception):
    """The database cannot be used as it is configured, now or later; the text says why."""


class Store(Protocol):
    """Durable: what a call has returned is on disk. Atomic: each call is one transaction.

    Each may raise StoreFailed. Any number of processes may have stores on one database; one
    object is for one event loop.
    """

    async def open(self) -> list[str]:
        """Connect and migrate; the names of the migrations that were applied.

        May be called again after StoreFailed. Raises StoreUnusable for what time does not mend.
        """

    async def close(self) -> None: ...

    async def accept(self, entries: Sequence[NewDelivery]) -> list[Accepted | Exception]:
        """Queue them, in this order within each user.

        For an entry whose key is known: the delivery that has it, or IdempotencyKeyReused if that
        has another fingerprint. Overloaded for what there is no room for.
        """

    async def claim(self, owner: str, limit: int) -> list[Claim]:
        """Lanes that are due and nobody's, at most `limit`, now the owner's for LEASE seconds."""

    async def queued(self, claim: Claim) -> Claim:
        """The claim with what is queued in its lane now."""

    async def advance(self, steps: Sequence[Step]) -> list[Progress]:
        """Take one step in each of these lanes, of which none may be there twice."""

    async def find(self, delivery_id: str) -> Delivery | None: ...

    async def figures(self) -> Figures: ...

    async def page(
        self, *, state: State | None, user_id: str | None, before: int | None, limit: int
    ) -> list[Delivery]:
        """The newest first; `before` is the `seq` of the last one of the page before."""

    async def retry(self, delivery_id: str) -> bool:
        """Queue what was refused or is dead again, at its old place; whether it was either."""

    async def drop(self, delivery_id: str) -> bool:
        """Forget it, whatever its state; whether there was any. An attempt under way goes on."""

    async def purge(self, *, keep: float) -> int:
        """Forget some of what is done: delivered `keep` seconds ago, else KEEP_FAILED; how many.

        Lanes that are idle go with it.
        """

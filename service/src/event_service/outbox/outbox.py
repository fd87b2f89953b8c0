"""The outbox as the rest of the service sees it: accepts events and reports their state."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from event_service.errors import DeliveryNotFound, OutboxUnavailable
from event_service.libs.group_commit import GroupCommit
from event_service.outbox.records import Accepted, Delivery, NewDelivery, State
from event_service.outbox.relay import POLL, Relay
from event_service.outbox.store import Store, StoreFailed
from event_service.signals import DeliveryAccepted, Emit, OutboxFailed, OutboxSeen

# Seconds between two updates of the figures, and updates between two purges.
LOOK = 2.0
TIDY_EVERY = 30
# Most batches of a purge in a row.
MOST_PURGES = 20


class Outbox:
    """Durable writes. An event is on disk when `accept` returns; it ends as delivered, refused or
    dead. Use from one event loop.
    """

    def __init__(
        self,
        store: Store,
        relay: Relay,
        *,
        keep: float,
        may_write: Callable[[], bool],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Delivered events are kept for `keep` seconds.

        Old deliveries are deleted only while `may_write()` is true.
        """
        self._store = store
        self._relay = relay
        self._keep = keep
        self._may_write = may_write
        self._emit = emit
        self._clock = clock
        self._accepts: GroupCommit[NewDelivery, Accepted] = GroupCommit(store.accept)
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_open = False

    async def open(self) -> None:
        """Connect and migrate. If the database cannot be reached, `run` tries again.

        Raises StoreUnusable if trying again cannot help.
        """
        try:
            applied = await self._store.open()
        except StoreFailed as error:
            self._emit(OutboxFailed("open", error))
            return
        self._is_open = True
        if applied:
            structlog.get_logger().info("outbox migrated", applied=applied)

    async def run(self) -> None:
        """Deliver, count and purge until `stop`."""
        while not (self._is_open or self._stopping.is_set()):
            await self._pause(LOOK)
            await self.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._relay.run())
                tasks.create_task(self._look_after())
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Let `run` return when the current attempts have ended. Others may deliver the rest."""
        self._stopping.set()
        self._relay.stop()

    async def end(self) -> None:
        """`stop`, and wait until `run` has returned."""
        self.stop()
        await self._ended.wait()

    async def close(self) -> None:
        """Close the store. Call it after the last `accept`."""
        await self._accepts.drain()
        await self._store.close()

    async def accept(self, new: NewDelivery) -> Accepted:
        """Store a delivery on disk, or find that of an earlier request with the same key.

        Raises OutboxUnavailable, Overloaded and IdempotencyKeyReused.
        """
        began = self._clock()
        try:
            accepted = await self._accepts.submit(new)
        except StoreFailed as error:
            self._emit(OutboxFailed("accept", error))
            raise OutboxUnavailable from error
        self._emit(DeliveryAccepted(accepted.id, accepted.new, self._clock() - began))
        self._relay.wake()
        return accepted

    async def find(self, delivery_id: str, *, client: str | None = None) -> Delivery:
        """Raise DeliveryNotFound if there is none or another client owns it, or OutboxUnavailable.

        With `client` None, the owner does not matter.
        """
        try:
            delivery = await self._store.find(delivery_id)
        except StoreFailed as error:
            raise OutboxUnavailable from error
        if delivery is None or client not in {None, delivery.client}:
            raise DeliveryNotFound
        return delivery

    async def settled(self, delivery_id: str, *, within: float) -> Delivery:
        """The delivery as soon as it is no longer queued, at the latest after `within` seconds.

        Raises as `find` does.
        """
        ends = self._clock() + within
        with self._relay.watched(delivery_id) as settled:
            while True:
                delivery = await self.find(delivery_id)
                left = ends - self._clock()
                if delivery.state is not State.QUEUED or left <= 0:
                    return delivery
                # Another worker may deliver it; this one is not told.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, POLL)):
                        await settled.wait()

    async def page(
        self,
        *,
        state: State | None = None,
        user_id: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        """Deliveries for operators, newest first; `before` is the `seq` of the last one seen.

        Raises OutboxUnavailable.
        """
        try:
            return await self._store.page(state=state, user_id=user_id, before=before, limit=limit)
        except StoreFailed as error:
            raise OutboxUnavailable from error

    async def retry(self, delivery_id: str) -> bool:
        """For operators: queue a refused or dead delivery again. False if it is neither.

        Raises OutboxUnavailable.
        """
        try:
            queued = await self._store.retry(delivery_id)
        except StoreFailed as error:
            raise OutboxUnavailable from error
        self._relay.wake()
        return queued

    async def drop(self, delivery_id: str) -> bool:
        """For operators: delete a delivery in any state. False if there is none.

        A current attempt continues. Raises OutboxUnavailable.
        """
        try:
            return await self._store.drop(delivery_id)
        except StoreFailed as error:
            raise OutboxUnavailable from error

    async def _look_after(self) -> None:
        looks = TIDY_EVERY
        while not self._stopping.is_set():
            try:
                self._emit(OutboxSeen(*await self._store.figures()))
                if looks >= TIDY_EVERY and self._may_write():
                    looks = 0
                    await self._tidy_up()
            except StoreFailed as error:
                self._emit(OutboxFailed("look", error))
            looks += 1
            await self._pause(LOOK)

    async def _tidy_up(self) -> None:
        for _ in range(MOST_PURGES):
            if not await self._store.purge(keep=self._keep):
                break

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

"""The outbox as the rest of the service sees it: take an event, tell what became of it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from event_service.errors import DeliveryNotFound, OutboxUnavailable
from event_service.libs.group_commit import GroupCommit
from event_service.outbox.records import Accepted, Delivery, Figures, NewDelivery, State
from event_service.outbox.relay import POLL, Relay
from event_service.outbox.store import Store, StoreFailed
from event_service.signals import DeliveryAccepted, Emit, OutboxFailed, OutboxSeen

# Seconds between two looks at the figures, and how many of them between two times to tidy up.
LOOK = 2.0
TIDY_EVERY = 30
# Deliveries that are forgotten at once, and at most so many times in a row.
MOST_PURGES = 20


class Outbox:
    """Durable writes. What `accept` has returned is on disk, and will be delivered or said to be
    refused or dead. Use from one event loop.
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
        """Delivered events can be asked for during `keep` seconds.

        The store is tidied up while `may_write` says so.
        """
        self._store = store
        self._relay = relay
        self._keep = keep
        self._may_write = may_write
        self._emit = emit
        self._clock = clock
        self._accepts: GroupCommit[NewDelivery, Accepted] = GroupCommit(store.accept)
        self._figures = Figures(0, 0.0)
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_open = False

    @property
    def figures(self) -> Figures:
        """How it stood some seconds ago, in all processes together."""
        return self._figures

    async def open(self) -> None:
        """Connect and migrate. What fails now for want of the database is tried again by `run`.

        Raises StoreUnusable for what time does not mend.
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
        """Deliver, count and tidy up until `stop`."""
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
        """Have `run` return once the attempts under way have ended. Others may deliver the rest."""
        self._stopping.set()
        self._relay.stop()

    async def end(self) -> None:
        """`stop`, and wait until `run` has returned."""
        self.stop()
        await self._ended.wait()

    async def close(self) -> None:
        """Close the store, once all that is to be accepted is."""
        await self._accepts.drain()
        await self._store.close()

    async def accept(self, new: NewDelivery) -> Accepted:
        """The delivery, on disk; that of an earlier request with the same key.

        Raises OutboxUnavailable, Overloaded, IdempotencyKeyReused.
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
        """Raise DeliveryNotFound if there is none, or it is another client's; OutboxUnavailable.

        `client` is None for those who may see all.
        """
        try:
            delivery = await self._store.find(delivery_id)
        except StoreFailed as error:
            raise OutboxUnavailable from error
        if delivery is None or client not in {None, delivery.client}:
            raise DeliveryNotFound
        return delivery

    async def settled(self, delivery_id: str, *, within: float) -> Delivery:
        """The delivery once it is no longer queued, or as it is after `within` seconds.

        Raises as `find` does.
        """
        ends = self._clock() + within
        with self._relay.watched(delivery_id) as settled:
            while True:
                delivery = await self.find(delivery_id)
                left = ends - self._clock()
                if delivery.state is not State.QUEUED or left <= 0:
                    return delivery
                # Another worker may deliver it, and says nothing.
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
        """For operators: the newest first; `before` is the `seq` of the last one seen.

        Raises OutboxUnavailable.
        """
        try:
            return await self._store.page(state=state, user_id=user_id, before=before, limit=limit)
        except StoreFailed as error:
            raise OutboxUnavailable from error

    async def retry(self, delivery_id: str) -> bool:
        """For operators: queue what was refused or is dead again; whether it was either.

        Raises OutboxUnavailable.
        """
        try:
            queued = await self._store.retry(delivery_id)
        except StoreFailed as error:
            raise OutboxUnavailable from error
        self._relay.wake()
        return queued

    async def drop(self, delivery_id: str) -> bool:
        """For operators: forget a delivery in any state; whether there was one.

        An attempt that is under way goes on. Raises OutboxUnavailable.
        """
        try:
            return await self._store.drop(delivery_id)
        except StoreFailed as error:
            raise OutboxUnavailable from error

    async def _look_after(self) -> None:
        looks = TIDY_EVERY
        while not self._stopping.is_set():
            try:
                self._figures = await self._store.figures()
                self._emit(OutboxSeen(*self._figures))
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

"""A PostgreSQL server that goes and comes back under the outbox."""

import asyncio
import signal

import pytest

from event_service.errors import OutboxUnavailable
from event_service.outbox.courier import Courier
from event_service.outbox.outbox import Outbox
from event_service.outbox.pacing import Rests, Window
from event_service.outbox.postgres_store import PostgresStore
from event_service.outbox.relay import Relay
from event_service.signals import DeliveryEnded
from halfopen import CircuitBreaker

from .stores import entry

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def build(url, delivered):
    circuit = CircuitBreaker("addEvent")
    store = PostgresStore(url, limit=1_000, give_up=1e6, lease=1.0)
    window, rests = Window(), Rests(window=30, random=lambda: 0.0)

    async def deliver(delivery):
        return delivery.id

    def emit(signal_):
        if isinstance(signal_, DeliveryEnded):
            delivered.add(signal_.delivery_id)

    courier = Courier(
        deliver,
        circuit,
        window=window,
        rests=rests,
        describe=lambda _id, _error: b"{}",
        attempt_limit=0.4,
    )
    relay = Relay(
        store,
        courier,
        circuit,
        owner="me",
        window=window,
        rests=rests,
        attempt_limit=0.4,
        emit=emit,
        lease=1.0,
    )
    return Outbox(store, relay, keep=60, may_write=lambda: True, emit=emit)


async def accepted(outbox):
    """The ids of what was taken, once anything is taken again."""
    async with asyncio.timeout(60):
        while True:
            new = entry()
            try:
                await outbox.accept(new)
            except OutboxUnavailable:
                await asyncio.sleep(0.1)
            else:
                return new.id


async def until_delivered(delivered, ids):
    async with asyncio.timeout(60):
        while not ids <= delivered:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_what_was_accepted_before_and_after_a_restart_is_delivered(stoppable_postgres, how):
    delivered: set[str] = set()
    outbox = build(stoppable_postgres.create_database(), delivered)
    await outbox.open()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(outbox.run())
        ids = {await accepted(outbox)}
        await asyncio.to_thread(stoppable_postgres.stop, how)
        with pytest.raises(OutboxUnavailable):
            await outbox.accept(entry())
        await asyncio.to_thread(stoppable_postgres.start)
        ids.add(await accepted(outbox))
        await until_delivered(delivered, ids)
        await outbox.end()
    await outbox.close()


async def test_an_outbox_that_starts_before_its_server_waits_for_it(stoppable_postgres):
    url = stoppable_postgres.create_database()
    await asyncio.to_thread(stoppable_postgres.stop)
    delivered: set[str] = set()
    outbox = build(url, delivered)
    await outbox.open()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(outbox.run())
        await asyncio.to_thread(stoppable_postgres.start)
        await until_delivered(delivered, {await accepted(outbox)})
        await outbox.end()
    await outbox.close()

"""The relay at work between a real store, a real breaker and an upstream of the tests' own."""

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager

import msgspec
import pytest

from event_service.errors import (
    Overloaded,
    UpstreamConflict,
    UpstreamFailed,
    UpstreamFault,
    UpstreamRejected,
    UserNotFound,
)
from event_service.outbox.courier import MOST_FAILURES, Courier
from event_service.outbox.pacing import Rests, Window
from event_service.outbox.records import State
from event_service.outbox.relay import Relay
from event_service.outbox.store import LEASE
from event_service.signals import DeliveryEnded, DeliveryFailed, DeliveryFenced
from halfopen import CircuitBreaker, FailureCount
from halfopen import State as Circuit

from .stores import entry

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


class Upstream:
    """Behind the breaker as the service's source is; notes every call that comes through."""

    def __init__(self, circuit):
        self.circuit = circuit
        self.calls = []
        self.stored = []
        self.down = False
        self.errors = defaultdict(list)  # delivery id: what its next attempts raise
        self.hold = None
        self.called = asyncio.Event()

    async def deliver(self, delivery):
        return await self.circuit.acall(self._answer, delivery)

    async def _answer(self, delivery):
        self.calls.append(delivery.id)
        self.called.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.errors[delivery.id]:
            raise self.errors[delivery.id].pop(0)
        if self.down:
            raise failed()
        self.stored.append(delivery.id)
        return f"up-{delivery.id}"


class Told:
    """A listener that remembers, and lets a test wait for what it is told."""

    def __init__(self):
        self.done = {}
        self.failed = []
        self.fenced = []
        self.changed = asyncio.Event()

    def emit(self, signal):
        match signal:
            case DeliveryEnded():
                self.done[signal.delivery_id] = signal.state
            case DeliveryFailed():
                self.failed.append((signal.delivery_id, signal.rest))
            case DeliveryFenced():
                self.fenced.append(signal.delivery_id)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def failed():
    return UpstreamFailed("addEvent", "The upstream failed.", reason="status 500")


class Worker:
    def __init__(
        self, database, store, *, cooldown=10.0, owner="worker", give_up=None, lease=LEASE
    ):
        self.database = database
        self.store = store
        self.clock = Clock()
        self.circuit = CircuitBreaker(
            "addEvent",
            trip=FailureCount(3, within=30),
            cooldown=cooldown,
            failure_on=UpstreamFault,
            ignore=(Overloaded,),
            clock=self.clock,
        )
        self.upstream = Upstream(self.circuit)
        self.told = Told()
        window, rests = Window(), Rests(window=30, random=lambda: 0.0)
        courier = Courier(
            self.upstream.deliver,
            self.circuit,
            window=window,
            rests=rests,
            describe=lambda _id, error: msgspec.json.encode({"detail": str(error)}),
            attempt_limit=5,
        )
        self.relay = Relay(
            store,
            courier,
            self.circuit,
            owner=owner,
            window=window,
            rests=rests,
            attempt_limit=5,
            emit=self.told.emit,
            lease=lease,
        )

    @asynccontextmanager
    async def at_work(self):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.relay.run())
            try:
                yield self
            finally:
                self.relay.stop()

    async def accept(self, *entries):
        await self.store.accept(list(entries))
        self.relay.wake()

    async def until_called(self, times):
        async with asyncio.timeout(20):
            while len(self.upstream.calls) < times:
                self.upstream.called.clear()
                await self.upstream.called.wait()

    async def pass_time(self, seconds):
        """For the store first: what a relay leases once the circuit lets it has its whole time."""
        await self.database.age(seconds)
        self.clock.now += seconds
        self.relay.wake()

    async def settle(self):
        """Until the relay has had the time for a few turns, in which it did nothing."""
        for _ in range(3):
            self.relay.wake()
            await self.store.figures()

    async def state_of(self, new):
        return (await self.store.find(new.id)).state


@pytest.fixture
async def worker(database):
    async with database.store(give_up=1e6) as store:
        yield Worker(database, store)


async def test_what_is_accepted_is_delivered_at_once(worker):
    new = entry()
    async with worker.at_work():
        await worker.accept(new)
        await worker.told.until(lambda: worker.told.done)
    found = await worker.store.find(new.id)
    assert (found.state, found.attempts, found.event_id) == (State.DELIVERED, 1, f"up-{new.id}")
    assert found.last_error is None


async def test_events_of_one_user_go_out_one_by_one_in_their_order(worker):
    new = [entry(str(n % 7)) for n in range(200)]
    worker.upstream.hold = asyncio.Event()
    async with worker.at_work():
        await worker.accept(*new)
        await worker.until_called(1)
        worker.upstream.hold.set()
        await worker.told.until(lambda: len(worker.told.done) == 200)
    assert len(worker.upstream.calls) == 200
    for user in range(7):
        mine = [each.id for each in new if each.user_id == str(user)]
        assert [each for each in worker.upstream.stored if each in set(mine)] == mine


async def test_an_outage_costs_three_calls_and_one_for_each_cooldown(worker):
    worker.upstream.down = True
    new = [entry(str(n % 40)) for n in range(400)]
    async with worker.at_work():
        await worker.accept(*new)
        await worker.told.until(lambda: worker.circuit.state is Circuit.OPEN)
        for cooldown in range(6):
            await worker.settle()
            assert len(worker.upstream.calls) == 3 + cooldown
            await worker.pass_time(10)
            await worker.until_called(3 + cooldown + 1)
        await worker.told.until(lambda: len(worker.told.failed) == 9)
        worker.upstream.down = False
        await worker.pass_time(31)
        await worker.told.until(lambda: len(worker.told.done) == 400)
    assert len(worker.upstream.calls) == 9 + 400
    for user in range(40):
        mine = [each.id for each in new if each.user_id == str(user)]
        assert [each for each in worker.upstream.stored if each in set(mine)] == mine


async def test_nothing_is_written_while_the_circuit_is_open(worker):
    async with worker.at_work():
        worker.circuit.trip(for_=10)
        await worker.accept(*(entry(str(n)) for n in range(5)))
        before = await worker.database.execute("SELECT * FROM lane ORDER BY user_id")
        await worker.settle()
        assert await worker.database.execute("SELECT * FROM lane ORDER BY user_id") == before
        assert worker.upstream.calls == []
        await worker.pass_time(11)
        await worker.told.until(lambda: len(worker.told.done) == 5)


async def test_a_lane_is_held_through_an_outage_and_goes_on_after_it(worker):
    new = [entry("u") for _ in range(4)]
    worker.upstream.hold = asyncio.Event()
    async with worker.at_work():
        await worker.accept(*new)
        await worker.until_called(1)
        worker.circuit.trip(for_=10)
        worker.upstream.hold.set()
        await worker.told.until(lambda: len(worker.told.done) == 1)
        await worker.settle()
        assert len(worker.upstream.calls) == 1
        await worker.pass_time(40)  # beyond its lease
        await worker.told.until(lambda: len(worker.told.done) == 4)
    assert worker.upstream.stored == [each.id for each in new]
    assert worker.told.fenced == []


@pytest.mark.parametrize(
    "error",
    [
        UserNotFound("1"),
        UpstreamRejected("addEvent", "No.", reason="status 422", upstream_status=422),
        UpstreamConflict("addEvent", "Conflict.", reason="status 409"),
    ],
)
async def test_a_refusal_is_final_and_the_next_event_goes_on(worker, error):
    refused, next_ = entry(), entry()
    worker.upstream.errors[refused.id] = [error]
    async with worker.at_work():
        await worker.accept(refused, next_)
        await worker.told.until(lambda: len(worker.told.done) == 2)
    assert worker.told.done == {refused.id: State.REFUSED, next_.id: State.DELIVERED}
    found = await worker.store.find(refused.id)
    assert msgspec.json.decode(found.last_error)["detail"] == str(error)


async def test_a_conflict_of_a_second_attempt_is_with_the_event_itself(worker):
    new = entry()
    worker.upstream.errors[new.id] = [
        failed(),
        UpstreamConflict("addEvent", "Conflict.", reason="status 409"),
    ]
    async with worker.at_work():
        await worker.accept(new)
        await worker.told.until(lambda: worker.told.failed)
        await worker.pass_time(5)
        await worker.told.until(lambda: worker.told.done)
    found = await worker.store.find(new.id)
    assert (found.state, found.attempts, found.event_id) == (State.DELIVERED, 2, new.id)


async def test_a_conflict_after_a_crash_is_with_the_event_itself(worker):
    """The first worker died after it had sent the event; its second one was never sent."""
    sent, unsent = entry(), entry()
    await worker.store.accept([sent, unsent])
    await worker.store.claim("died", 1)
    conflict = UpstreamConflict("addEvent", "Conflict.", reason="status 409")
    worker.upstream.errors[sent.id] = [conflict]
    worker.upstream.errors[unsent.id] = [conflict]
    await worker.pass_time(LEASE + 1)
    async with worker.at_work():
        await worker.told.until(lambda: len(worker.told.done) == 2)
    assert worker.told.done == {sent.id: State.DELIVERED, unsent.id: State.REFUSED}


async def test_an_event_that_always_fails_dies_and_delays_nobody_else(worker):
    poison, behind = entry("poison"), entry("poison")
    worker.upstream.errors[poison.id] = [failed() for _ in range(MOST_FAILURES)]
    async with worker.at_work():
        await worker.accept(poison, behind)
        await worker.told.until(lambda: worker.told.failed)
        for attempt in range(2, MOST_FAILURES + 1):
            # Others are served all the time.
            other = entry(f"other-{attempt}")
            await worker.accept(other)
            await worker.told.until(lambda other=other: other.id in worker.told.done)
            assert worker.circuit.state is Circuit.CLOSED
            await worker.pass_time(worker.told.failed[-1][1] + 1)
            await worker.told.until(
                lambda attempt=attempt: (
                    len(worker.told.failed) == attempt or poison.id in worker.told.done
                )
            )
        await worker.told.until(lambda: behind.id in worker.told.done)
    assert worker.told.done[poison.id] is State.DEAD
    assert worker.told.done[behind.id] is State.DELIVERED
    found = await worker.store.find(poison.id)
    assert (found.attempts, found.failures) == (MOST_FAILURES, MOST_FAILURES)


async def test_a_failed_canary_does_not_count_against_its_event(worker):
    worker.upstream.down = True
    new = entry()
    async with worker.at_work():
        await worker.accept(new)
        for count in range(1, 30):
            await worker.told.until(lambda count=count: len(worker.told.failed) == count)
            wait = max(worker.told.failed[-1][1], worker.circuit.snapshot().retry_after)
            await worker.pass_time(wait + 0.1)
        worker.upstream.down = False
        await worker.told.until(lambda: worker.told.done)
    found = await worker.store.find(new.id)
    assert found.state is State.DELIVERED
    assert (found.attempts, found.failures) == (30, 3)


async def test_what_is_past_its_time_is_given_up_without_an_attempt(database):
    async with database.store(give_up=60.0) as store:
        worker = Worker(database, store)
        old, new = entry(), entry("2")
        await store.accept([old])
        await worker.pass_time(61)
        await store.accept([new])
        async with worker.at_work():
            await worker.told.until(lambda: len(worker.told.done) == 2)
        assert worker.upstream.calls == [new.id]
        found = await store.find(old.id)
        assert (found.state, found.attempts) == (State.DEAD, 0)
        assert "in the time" in msgspec.json.decode(found.last_error)["detail"]


async def test_a_call_refused_by_a_full_bulkhead_is_not_an_attempt(worker):
    new = entry()
    worker.upstream.errors[new.id] = [Overloaded("Too many calls.")]
    async with worker.at_work():
        await worker.accept(new)
        await worker.told.until(lambda: worker.told.done)
    assert (await worker.store.find(new.id)).attempts == 1
    assert worker.told.failed == []


async def test_a_bug_in_a_delivery_stops_no_other_lane(worker):
    broken, fine = entry("1"), entry("2")
    worker.upstream.errors[broken.id] = [ZeroDivisionError()]
    async with worker.at_work():
        await worker.accept(broken, fine)
        await worker.told.until(lambda: worker.told.failed and worker.told.done)
    assert worker.told.done == {fine.id: State.DELIVERED}


async def test_a_worker_that_was_paused_finds_its_late_record_fenced(database, store):
    paused = Worker(database, store, owner="paused")
    paused.upstream.hold = asyncio.Event()
    new = [entry(), entry()]
    async with database.store() as other, paused.at_work():
        await paused.accept(*new)
        await paused.until_called(1)
        await database.age(LEASE + 1)
        awake = Worker(database, other, owner="awake")
        async with awake.at_work():
            await awake.told.until(lambda: len(awake.told.done) == 2)
        paused.upstream.hold.set()
        await paused.told.until(lambda: paused.told.fenced)
    assert paused.told.done == {}
    assert (await store.find(new[0].id)).event_id == f"up-{new[0].id}"
    assert paused.upstream.calls == [new[0].id]


async def test_a_stopped_worker_ends_its_attempt_and_gives_its_lanes_back(database, store):
    first = Worker(database, store, owner="first")
    first.upstream.hold = asyncio.Event()
    new = [entry(), entry()]
    async with first.at_work():
        await first.accept(*new)
        await first.until_called(1)
        first.relay.stop()
        first.upstream.hold.set()
    assert first.told.done == {new[0].id: State.DELIVERED}
    second = Worker(database, store, owner="second")
    async with second.at_work():
        await second.told.until(lambda: second.told.done)
    assert second.upstream.calls == [new[1].id]


async def test_two_workers_share_the_work_and_repeat_nothing(database, store):
    async with database.store() as other:
        workers = [Worker(database, store, owner="a"), Worker(database, other, owner="b")]
        new = [entry(str(n % 50)) for n in range(500)]
        async with workers[0].at_work(), workers[1].at_work():
            for part in range(0, 500, 50):
                await workers[part % 100 // 50].accept(*new[part : part + 50])
            async with asyncio.timeout(20):
                while (await store.figures()).pending:
                    await asyncio.gather(*(worker.settle() for worker in workers))
        calls = [call for worker in workers for call in worker.upstream.calls]
        assert sorted(calls) == sorted(each.id for each in new)

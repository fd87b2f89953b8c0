"""Delivers queued events, for each user in the order of acceptance."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

from event_service.errors import Overloaded
from event_service.libs.group_commit import GroupCommit
from event_service.outbox.courier import Attempted, Courier
from event_service.outbox.pacing import Rests, Window
from event_service.outbox.records import Claim, Delivery, Outcome, Progress, Step, Then
from event_service.outbox.store import LEASE, Store, StoreFailed
from event_service.signals import (
    DeliveryEnded,
    DeliveryFailed,
    DeliveryFenced,
    DeliveryPutOff,
    Emit,
    OutboxFailed,
)
from halfopen import CircuitBreaker, CircuitOpen, StateChanged
from halfopen import State as Circuit

# Seconds between two checks for events that other workers have accepted or left behind.
POLL = 1.0
# Before an attempt, the lease must last for the attempt's limit plus this fraction of the lease.
MARGIN = 0.03
# Seconds to pause after an attempt found no free slot for a call to the upstream.
CROWDED = 1.0


class Lane:
    """A claim in progress: its next event, and a time until which it is certainly ours."""

    def __init__(self, claim: Claim, lease_ends: float) -> None:
        self.claim = claim
        self.lease_ends = lease_ends
        self.maybe_sent = claim.resumed
        self._done = 0

    @property
    def next(self) -> Delivery | None:
        queued = self.claim.queued
        return queued[self._done] if self._done < len(queued) else None

    @property
    def at_last(self) -> bool:
        """Whether the next event is the last known one."""
        return self.claim.complete and self._done + 1 >= len(self.claim.queued)

    def go_on(self) -> None:
        self._done += 1

    def read_on(self, claim: Claim) -> None:
        self.claim = claim
        self._done = 0


class Relay:
    """Claims lanes that are due, delivers their events and records the results.

    While the circuit is open it keeps its lanes, and makes no attempts and no writes. While the
    circuit is half-open, one lane continues; its event may be the canary. Use from one event loop.
    """

    def __init__(
        self,
        store: Store,
        courier: Courier,
        circuit: CircuitBreaker,
        *,
        owner: str,
        window: Window,
        rests: Rests,
        attempt_limit: float,
        emit: Emit,
        lease: float = LEASE,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`owner` must be unique. `lease` is the store's; it must exceed `attempt_limit`."""
        self._store = store
        self._courier = courier
        self._circuit = circuit
        self._owner = owner
        self._window = window
        self._rests = rests
        self._emit = emit
        self._lease = lease
        self._least_lease = attempt_limit + MARGIN * lease
        self._clock = clock
        self._wall_clock = wall_clock
        self._steps: GroupCommit[Step, Progress] = GroupCommit(store.advance)
        self._active: set[Lane] = set()
        self._held: list[Lane] = []
        self._size_seen = 0
        self._crowded_until = -inf
        self._stopping = False
        self._woken = asyncio.Event()
        self._watched: dict[str, set[asyncio.Event]] = {}

    def wake(self) -> None:
        """Look for due lanes at once, because an event was accepted."""
        self._woken.set()

    def stop(self) -> None:
        """Let `run` return when the current attempts have ended."""
        self._stopping = True
        self._woken.set()

    @contextmanager
    def watched(self, delivery_id: str) -> Iterator[asyncio.Event]:
        """An asyncio event that is set when this relay has settled the delivery."""
        event = asyncio.Event()
        self._watched.setdefault(delivery_id, set()).add(event)
        try:
            yield event
        finally:
            watching = self._watched[delivery_id]
            watching.discard(event)
            if not watching:
                del self._watched[delivery_id]

    async def run(self) -> None:
        """Deliver until `stop`, then release our lanes."""
        loop = asyncio.get_running_loop()

        def on_state(event: StateChanged) -> None:
            # The state may change in another thread.
            loop.call_soon_threadsafe(self._on_state, event.new)

        stop_listening = self._circuit.on(StateChanged, on_state)
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self._stopping:
                    await self._turn(tasks)
            await self._give_back()
        finally:
            stop_listening()

    async def _turn(self, tasks: asyncio.TaskGroup) -> None:
        self._woken.clear()
        pause = self._pause()
        if pause > 0:
            await self._rest(pause)
            return
        self._size_seen = self._window.size
        most = self._size_seen if self._circuit.state is Circuit.CLOSED else 1
        room = most - len(self._active)
        # Fewest attempts first: such an event is the best canary.
        self._held.sort(key=_attempts)
        while self._held and room > 0:
            self._start(self._held.pop(0), tasks)
            room -= 1
        claims = await self._claim(room) if room > 0 else []
        for lane in claims:
            self._start(lane, tasks)
        if room <= 0 or len(claims) < room:
            await self._rest(POLL)

    async def _claim(self, limit: int) -> list[Lane]:
        # Computed before the call, so that our copy ends before the stored lease.
        lease_ends = self._clock() + self._lease
        try:
            claims = await self._store.claim(self._owner, limit)
        except StoreFailed as error:
            self._emit(OutboxFailed("claim", error))
            return []
        return [Lane(claim, lease_ends) for claim in claims]

    def _start(self, lane: Lane, tasks: asyncio.TaskGroup) -> None:
        self._active.add(lane)
        tasks.create_task(self._work(lane))

    async def _rest(self, seconds: float) -> None:
        """Wait until something happens, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def _pause(self) -> float:
        """Seconds until an attempt may begin."""
        crowded = self._crowded_until - self._clock()
        if self._circuit.state is Circuit.CLOSED:
            return crowded
        return max(self._circuit.snapshot().retry_after, crowded)

    def _on_state(self, new: Circuit) -> None:
        if new is Circuit.CLOSED:
            self._rests.succeeded()
        self._window.start_over()
        self._woken.set()

    async def _work(self, lane: Lane) -> None:
        try:
            while await self._deliver_next(lane):
                pass
        except StoreFailed as error:
            # The lane stays ours until its lease ends; then any worker may claim it.
            self._emit(OutboxFailed("record", error))
        finally:
            self._active.discard(lane)
            if not self._active:
                self._window.start_over()
            self._woken.set()

    async def _deliver_next(self, lane: Lane) -> bool:
        """Deliver the lane's next event. Returns whether to continue with the lane."""
        delivery = lane.next
        if delivery is None:
            return await self._read_on(lane)
        if self._stopping or self._pause() > 0:
            self._held.append(lane)
            return False
        if lane.lease_ends - self._clock() < self._least_lease:
            return await self._step(lane, Then.KEEP) is not Progress.FENCED
        maybe_sent = lane.maybe_sent or delivery.attempts > 0
        try:
            attempted = await self._courier.attempt(delivery, maybe_sent=maybe_sent)
        except (CircuitOpen, Overloaded) as error:
            if isinstance(error, Overloaded):
                self._crowded_until = self._clock() + CROWDED
            self._held.append(lane)
            self._emit(DeliveryPutOff(delivery.id))
            return False
        lane.maybe_sent = False
        return await self._record(lane, delivery, attempted)

    async def _record(self, lane: Lane, delivery: Delivery, attempted: Attempted) -> bool:
        outcome, rest, error = attempted
        then = Then.LEAVE if lane.at_last else Then.KEEP
        if rest is not None:
            then = Then.REST
        made = await self._step(lane, then, outcome, rest or 0.0)
        attempts = delivery.attempts + outcome.attempts
        if made is Progress.FENCED:
            self._emit(DeliveryFenced(delivery.id, delivery.request_id))
            return False
        if rest is not None and error is not None:
            self._emit(DeliveryFailed(delivery.id, attempts, rest, delivery.request_id, error))
            return False
        age = max(0.0, self._wall_clock() - delivery.accepted_at)
        self._emit(
            DeliveryEnded(delivery.id, outcome.state, attempts, age, delivery.request_id, error)
        )
        for event in self._watched.get(delivery.id, ()):
            event.set()
        lane.go_on()
        if self._window.size > self._size_seen:
            # The window grew: another lane may start.
            self._woken.set()
        if made is Progress.MORE:
            lane.read_on(await self._store.queued(lane.claim))
        return made is not Progress.LEFT

    async def _read_on(self, lane: Lane) -> bool:
        """Read more of the lane, or leave it if nothing is queued. Returns whether to continue."""
        if not lane.claim.complete:
            lane.read_on(await self._store.queued(lane.claim))
            if lane.next is not None:
                return True
        made = await self._step(lane, Then.LEAVE)
        if made is Progress.MORE:
            lane.read_on(await self._store.queued(lane.claim))
        return made is Progress.MORE

    async def _step(
        self, lane: Lane, then: Then, outcome: Outcome | None = None, rest: float = 0.0
    ) -> Progress:
        claim = lane.claim
        lease_ends = self._clock() + self._lease
        made = await self._steps.submit(
            Step(claim.user_id, claim.token, claim.seen, then, outcome, rest)
        )
        lane.lease_ends = lease_ends
        return made

    async def _give_back(self) -> None:
        """Release the held lanes to other workers.

        A lane whose first event may have been sent is not released: when its lease ends, the next
        owner knows that it may have been.
        """
        held, self._held = [lane for lane in self._held if not lane.maybe_sent], []
        try:
            for lane in held:
                await self._step(lane, Then.REST)
        except StoreFailed as error:
            self._emit(OutboxFailed("give back", error))


def _attempts(lane: Lane) -> int:
    return lane.next.attempts if lane.next is not None else 0

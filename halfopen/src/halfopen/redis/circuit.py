"""What one breaker tells the cluster, and the cluster it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from math import ceil
from typing import Any, Protocol, TypeAlias, TypeVar

from halfopen.breaker import CircuitBreaker
from halfopen.cluster import Denied, Grant, Verdict
from halfopen.redis.link import LinkLost
from halfopen.rules import FailureCount
from halfopen.state import CLOSED, HALF_OPEN, ISOLATED, OPEN, State

T = TypeVar("T")
# A claim that takes longer is not waited for: the node goes on alone. It is waited for in steps,
# so that an event loop that is late itself does not take its own delay for that of Redis.
CLAIM_PATIENCE = 0.05
STEPS = 5
# How soon a caller who cannot wait may ask for the grant that is on its way.
ASK_AGAIN = 0.02
# Failures that are kept to be reported. More than a threshold need not be known.
MOST_FAILURES = 1_000
# For how long a vote, and an outage seen by one node alone, are remembered where no rule says so.
WINDOW = 30.0


_Claim: TypeAlias = "asyncio.Task[Grant | Denied | None]"


class _Alone(Grant):
    """A grant that this node has given itself."""


class Cluster(Protocol):
    """What a circuit needs of the cluster that it is part of."""

    node: str
    quorum: int
    joined: bool
    clock: Callable[[], float]

    async def run(self, script: str, circuit: Circuit, *arguments: Any) -> list[Any]: ...
    def lose(self, reason: str) -> None: ...
    def look_soon(self) -> None: ...
    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]: ...
    def on_loop(self, work: Callable[[], object]) -> None: ...
    async def awaited(self, work: Coroutine[Any, Any, T]) -> T: ...
    def count_claim(self, outcome: str) -> None: ...


class Circuit:
    """The coordinator of one breaker. Its methods may be called in any thread; all else runs on
    the event loop of the cluster.
    """

    def __init__(self, cluster: Cluster, breaker: CircuitBreaker, *, lease: float) -> None:
        """`lease`: seconds that a canary may take before another node may send one."""
        self._cluster = cluster
        self.breaker = breaker
        self._lease = lease
        counts = [
            reading.rule
            for reading in breaker.snapshot().rules
            if isinstance(reading.rule, FailureCount)
        ]
        # Counts add up over the nodes. What any other rule finds is one node's vote.
        self._threshold = min((rule.n for rule in counts), default=0)
        self._window = max((rule.within for rule in counts), default=WINDOW)
        self._number = 0
        self._failures: deque[tuple[int, float]] = deque(maxlen=MOST_FAILURES)
        self._vote: float | None = None  # when the cooldown ends that this node began by itself
        self._reporting = False
        # The newest decision of the cluster, and when its cooldown or lease ends.
        self.epoch = 0
        self._decided: State = CLOSED
        self._ends = 0.0
        self._order: tuple[State, float] | None = None  # an operator's, until it is delivered
        self._on_its_own = False  # the breaker has decided what the cluster does not know
        self._late: _Claim | None = None  # unanswered when a probe went out without it
        self._settling: set[asyncio.Task[None]] = set()
        self._fetching = False
        self._fetched: deque[tuple[Grant, float]] = deque(maxlen=1)  # and until when it holds

    # What the breaker tells, in any thread

    def failed(self) -> None:
        at = self._cluster.clock()
        self._cluster.on_loop(lambda: self._count(at))

    def tripped(self, remaining: float) -> None:
        ends = self._cluster.clock() + remaining
        self._cluster.on_loop(lambda: self._cast_vote(ends))

    def steered(self, state: State, remaining: float) -> None:
        ends = self._cluster.clock() + remaining
        self._cluster.on_loop(lambda: self._take_order(state, ends))

    def settled(self, grant: Grant, verdict: Verdict, state: State, remaining: float) -> None:
        del state  # the verdict says enough
        ends = self._cluster.clock() + remaining
        self._cluster.on_loop(lambda: self._settle_later(grant, verdict, ends))

    async def claim(self) -> Grant | Denied:
        if not self._cluster.joined:
            return self._alone()
        return await self._cluster.awaited(self._claim_in_time())

    def ask(self) -> Grant | Denied:
        if not self._cluster.joined:
            return self._alone()
        try:
            grant, until = self._fetched.popleft()
        except IndexError:
            pass
        else:
            left = until - self._cluster.clock()
            if left > 0:
                return Grant(grant.fence, left)
        self._cluster.on_loop(self._fetch)
        return Denied(ASK_AGAIN)

    def _alone(self) -> Grant:
        return _Alone(self.breaker.epoch, max(self._lease, self.breaker.snapshot().next_cooldown))

    # On the event loop

    def _count(self, at: float) -> None:
        self._number += 1
        self._failures.append((self._number, at))
        self._report_soon()

    def _cast_vote(self, ends: float) -> None:
        self._vote = ends
        self._on_its_own = True
        self._report_soon()

    def _take_order(self, state: State, ends: float) -> None:
        self._order = (state, ends)
        self._cluster.look_soon()

    def _report_soon(self) -> None:
        if self._cluster.joined and not self._reporting:
            self._reporting = True
            self._cluster.spawn(self._report())

    async def _report(self) -> None:
        """Tell what failed; whatever fails meanwhile goes into the next report."""
        try:
            while self._failures or self._vote is not None:
                now = self._cluster.clock()
                failures = [(n, at) for n, at in self._failures if now - at <= self._window]
                vote = self._vote
                self._failures.clear()
                self._vote = None
                lasts = self.breaker.snapshot().next_cooldown if vote is None else vote - now
                arguments: list[Any] = [
                    *(self.epoch, self._threshold, ceil(self._window * 1000)),
                    *(self._cluster.quorum, _ms(lasts), int(vote is not None)),
                ]
                for number, at in failures:
                    arguments += [number, _ms(now - at)]
                try:
                    view = await self._cluster.run("report", self, *arguments)
                except LinkLost:
                    self._keep_back(failures, vote)
                    return
                self.adopt(view)
                self._on_its_own = False
                if int(view[0]) < self.epoch:
                    # Redis has lost what we know. It is put right, then told again.
                    self._keep_back(failures, vote)
                    self._cluster.look_soon()
                    return
        finally:
            self._reporting = False

    def _keep_back(self, failures: list[tuple[int, float]], vote: float | None) -> None:
        self._failures.extendleft(reversed(failures))
        self._vote = vote if self._vote is None else self._vote

    async def _claim_in_time(self) -> Grant | Denied:
        claim = self._cluster.spawn(self._claim())
        try:
            for _ in range(STEPS):
                if not claim.done():
                    await asyncio.wait({claim}, timeout=CLAIM_PATIENCE / STEPS)
        except asyncio.CancelledError:
            claim.add_done_callback(self._give_back)
            raise
        if not claim.done():
            self._cluster.lose("a claim was not answered in time")
            self._late = claim
            return self._alone()
        return claim.result() or self._alone()

    async def _claim(self) -> Grant | Denied | None:
        """What the cluster says; None if it is not asked, or is away."""
        if self._settling:
            # A grant that was given back just now is refused until Redis has heard of that.
            await asyncio.wait(self._settling)
        try:
            granted, *view = await self._cluster.run("claim", self, self.epoch, _ms(self._lease))
        except LinkLost as error:
            self._cluster.lose(str(error))
            return None
        epoch, state, left = int(view[0]), State(view[1]), int(view[2]) / 1000
        self._cluster.count_claim("granted" if granted == "1" else "refused")
        if granted == "1":
            self._note(epoch, HALF_OPEN, left)
            return Grant(epoch, self._lease)
        if state is CLOSED and epoch <= self.epoch:
            # The circuit is open on this node alone, so its probe is nobody else's business.
            return None
        self.adopt(view)
        return Denied(left)

    def _fetch(self) -> None:
        if not self._fetching:
            self._fetching = True
            self._cluster.spawn(self._fetch_grant())

    async def _fetch_grant(self) -> None:
        """Claim for a caller who comes later, and give back what nobody takes."""
        try:
            grant = await self._claim()
        finally:
            self._fetching = False
        if grant is None:
            grant = self._alone()
        if isinstance(grant, Denied):
            return
        # Half of the lease is left for the probe itself.
        half = self._lease / 2
        kept = (grant, self._cluster.clock() + half)
        self._fetched.append(kept)
        await asyncio.sleep(half)
        if kept in self._fetched:
            self._fetched.remove(kept)
            self._settle_later(grant, Verdict.NEUTRAL, 0.0)

    def _give_back(self, claim: _Claim) -> None:
        grant = None if claim.cancelled() else claim.result()
        if isinstance(grant, Grant):
            self._settle_later(grant, Verdict.NEUTRAL, 0.0)

    def _settle_later(self, grant: Grant, verdict: Verdict, ends: float) -> None:
        if not isinstance(grant, _Alone):
            self._settle_soon(grant, verdict, ends)
            return
        late, self._late = self._late, None
        if late is None:
            self._decide_alone(verdict)
            return

        def settle(claim: _Claim) -> None:
            granted = None if claim.cancelled() else claim.result()
            if isinstance(granted, Grant):
                self._settle_soon(granted, verdict, ends)
            else:
                self._decide_alone(verdict)

        late.add_done_callback(settle)

    def _decide_alone(self, verdict: Verdict) -> None:
        if verdict is not Verdict.NEUTRAL:
            self._on_its_own = True
            self._cluster.look_soon()

    def _settle_soon(self, grant: Grant, verdict: Verdict, ends: float) -> None:
        settling = self._cluster.spawn(self._settle(grant, verdict, ends))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def _settle(self, grant: Grant, verdict: Verdict, ends: float) -> None:
        lasts = _ms(ends - self._cluster.clock())
        needed = self.breaker.snapshot().success_threshold
        try:
            counted, *view = await self._cluster.run(
                "settle", self, grant.fence, verdict.value, lasts, needed
            )
        except LinkLost:
            self._decide_alone(verdict)
            return
        if counted == "0" and int(view[0]) == grant.fence:
            # A failover had lost the grant, and somebody has put the circuit right. Nobody else
            # has had a grant since.
            self._decide_alone(verdict)
            return
        self.adopt(view)

    # What the cluster tells, on the event loop

    def sight(self) -> list[Any]:
        """What a look at the cluster says of this circuit, and asks for."""
        if self._order is not None:
            state, ends = self._order
            return [self.epoch, state.value, self._left(ends), 1]
        if self._on_its_own and self._decided is not CLOSED and self.breaker.state is CLOSED:
            # Its canary found out, while it was alone, that all is well.
            return [self.epoch, CLOSED.value, 0, 2]
        return [self.epoch, self._decided.value, self._left(self._ends), 0]

    def looked(self, order: int, view: list[Any]) -> None:
        """What a look has found, which was sent with `order`."""
        if order == 1:
            self._order = None
        self.adopt(view)
        if self._on_its_own and self._decided is CLOSED:
            if self.breaker.state is OPEN:
                self._vote = self._cluster.clock() + self.breaker.snapshot().retry_after
            self._on_its_own = False
        self._report_soon()

    def adopt(self, view: list[Any]) -> None:
        """Follow a decision, if it is news."""
        epoch, state, left = int(view[0]), State(view[1]), int(view[2]) / 1000
        if epoch <= self.epoch:
            return
        self._note(epoch, state, left)
        if state is HALF_OPEN and view[3] == self._cluster.node:
            return  # our own canary: its grant says so
        if state is ISOLATED and self.breaker.state is ISOLATED:
            return  # our own operator's, who holds the handle that ends it
        self.breaker.follow(epoch, state, left)

    def _note(self, epoch: int, state: State, left: float) -> None:
        self.epoch, self._decided = epoch, state
        self._ends = self._cluster.clock() + left
        self._on_its_own = False
        self._vote = None

    def _left(self, ends: float) -> int:
        return _ms(ends - self._cluster.clock())


def _ms(seconds: float) -> int:
    """Rounded up, so that nothing ends early."""
    return max(0, ceil(seconds * 1000))

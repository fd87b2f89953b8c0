from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Self, TypeVar

from halfopen.breaker import CircuitBreaker
from halfopen.redis.circuit import Circuit
from halfopen.redis.link import PATIENCE, Link, LinkLost, RedisLink

logger = logging.getLogger("halfopen.redis")
T = TypeVar("T")

LOOK_EVERY = 1.0  # seconds, while all is well
LOOK_AGAIN = 0.25  # seconds, while Redis is away
LEASE = 2.5  # seconds
_SAFE_POLICIES = ("noeviction", "volatile-")


@dataclass(frozen=True, slots=True)
class Figures:
    """Where a node stands, and totals since it was made; times in seconds."""

    joined: bool  # False: Redis is away, and the node goes on alone
    nodes: int  # alive in the cluster, this one included; the last number known while alone
    round_trips: int
    claims_granted: int
    claims_refused: int
    gossip: float | None  # from this node's last decision until it heard of it itself


class RedisCircuits:
    """Breakers of the same name on all nodes that name the same Redis act as one circuit.

    They open together, one node sends the one canary, and all hear of its result. Redis decides
    transitions alone: a healthy call never goes there, and costs what it costs without. While
    Redis is slow or away each node goes on alone, and is part of the cluster again within a second
    of its return. Redis or Valkey 7 or newer; needs the extra `halfopen[redis]`.

        async with RedisCircuits("redis://127.0.0.1", "shop") as circuits:
            breaker = circuits.join(CircuitBreaker("payments", trip=FailureCount(3, within=30)))

    `FailureCount` counts the failures of all nodes together. What any other rule finds is one
    node's vote. `quorum` is how many nodes must have seen failures before all open; a node whose
    own rule trips is open for itself at once. Times are those of Redis' clock alone, so the nodes'
    clocks need not agree.

    Calls may come from any thread; what is written here runs on the event loop that entered it.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        quorum: int = 1,
        lease: float = LEASE,
        node: str | None = None,
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lease`: seconds after which a silent canary may be sent by another node, unless `join`
        says otherwise: somewhat longer than a call can take. `node` must differ for each process.
        `link` stands in for the connection to `url`. Raises ValueError for what cannot be.
        """
        if not name or any(character in "{}" for character in name):
            raise ValueError("name must not be empty, nor contain braces")
        if quorum < 1:
            raise ValueError("quorum must be at least 1")
        if lease <= 0:
            raise ValueError("lease must be above 0")
        self.node = node or f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
        self.quorum = quorum
        self.joined = False
        self.clock = clock
        self._said_alone = False
        self._name = name
        self._prefix = f"{{{name}}}"  # a hash tag: in a Redis Cluster all keys are in one slot
        self._channel = f"{self._prefix}:circuits"
        self._lease = lease
        self._link = RedisLink(url) if link is None else link
        self._circuits: dict[str, Circuit] = {}
        self._leave: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._nodes = 1
        self._round_trips = 0
        self._claims = {"granted": 0, "refused": 0}
        self._told: dict[str, float] = {}
        self._gossip: float | None = None
        self._look_now = asyncio.Event()
        self._policy_checked = False

    async def __aenter__(self) -> Self:
        """Joins if Redis is there, and else as soon as it is."""
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        first = self._loop.create_future()
        self.spawn(self._keep_up(first))
        try:
            await asyncio.wait({first}, timeout=PATIENCE)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for leave in self._leave:
            leave()
        joined, self.joined = self.joined, False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if joined:
            with suppress(LinkLost, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._link.forget(f"{self._prefix}:nodes", self.node)
        await self._link.close()

    def join(self, breaker: CircuitBreaker, *, lease: float | None = None) -> CircuitBreaker:
        """The breaker itself, from now on one circuit with those of its name on other nodes.

        Raises ValueError if this node has joined one of that name.
        """
        if breaker.name in self._circuits:
            raise ValueError(f"a circuit named {breaker.name!r} has joined already")
        circuit = Circuit(self, breaker, lease=self._lease if lease is None else lease)
        self._leave.append(breaker.join(circuit))
        self._circuits[breaker.name] = circuit
        self.on_loop(self.look_soon)
        return breaker

    def figures(self) -> Figures:
        return Figures(
            joined=self.joined,
            nodes=self._nodes,
            round_trips=self._round_trips,
            claims_granted=self._claims["granted"],
            claims_refused=self._claims["refused"],
            gossip=self._gossip,
        )

    # For the circuits

    async def run(self, script: str, circuit: Circuit, *arguments: Any) -> list[Any]:
        operation = circuit.breaker.name
        keys = [self._key(operation), self._key(operation, "failures"), f"{self._prefix}:nodes"]
        self._told[operation] = self.clock()
        return await self._call(script, keys, [self.node, self._channel, operation, *arguments])

    def lose(self, reason: str) -> None:
        if self.joined:
            self.joined = False
            self._look_now.set()
        if not self._said_alone:  # also where Redis was never there
            self._said_alone = True
            logger.warning("cluster %s: this node goes on alone: %s", self._name, reason)

    def look_soon(self) -> None:
        self._look_now.set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def on_loop(self, work: Callable[[], object]) -> None:
        if get_ident() == self._thread:
            work()
        else:
            self._loop.call_soon_threadsafe(work)

    async def awaited(self, work: Coroutine[Any, Any, T]) -> T:
        """Await it on the cluster's loop, from whatever loop this is."""
        if get_ident() == self._thread:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def count_claim(self, outcome: str) -> None:
        self._claims[outcome] += 1

    # Keeping up with the others

    async def _keep_up(self, first: asyncio.Future[None]) -> None:
        while True:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(PATIENCE):
                        subscribed = self._link.messages(self._channel)
                        messages = await stack.enter_async_context(subscribed)
                    # What is decided from now on is heard, and what was before, the look shows.
                    listening = self.spawn(self._listen(messages))
                    stack.callback(listening.cancel)
                    await self._look_on(listening, first)
            except (LinkLost, TimeoutError) as error:
                self.lose(str(error) or "Redis does not answer")
            if not first.done():
                first.set_result(None)
            await asyncio.sleep(LOOK_AGAIN)

    async def _look_on(self, listening: asyncio.Task[None], first: asyncio.Future[None]) -> None:
        """Look again and again, until something is lost."""
        while True:
            self._look_now.clear()
            await self._look()
            if not self.joined:
                self.joined = True
                self._said_alone = False
                logger.info("cluster %s: joined, nodes alive: %d", self._name, self._nodes)
                await self._check_policy()
                # What was kept back while it was alone.
                self._look_now.set()
            if not first.done():
                first.set_result(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._look_now.wait()
            if listening.done():
                listening.result()
                raise LinkLost("the subscription ended")

    async def _look(self) -> None:
        circuits = list(self._circuits.items())
        sights = [circuit.sight() for _, circuit in circuits]
        arguments: list[Any] = [self.node, self._channel]
        for (operation, _), sight in zip(circuits, sights, strict=True):
            arguments += [operation, *sight]
        keys = [f"{self._prefix}:nodes", *(self._key(operation) for operation, _ in circuits)]
        nodes, *views = await self._call("look", keys, arguments)
        self._nodes = nodes
        for (_, circuit), sight, view in zip(circuits, sights, views, strict=True):
            circuit.looked(sight[3], view)

    async def _listen(self, messages: Any) -> None:
        async for message in messages:
            operation, view, node = json.loads(message)
            if node == self.node and operation in self._told:
                self._gossip = self.clock() - self._told.pop(operation)
            if operation in self._circuits:
                self._circuits[operation].adopt(view)

    async def _check_policy(self) -> None:
        if self._policy_checked:
            return
        async with asyncio.timeout(PATIENCE):
            policy = await self._link.eviction_policy()
        self._policy_checked = True
        if not policy.startswith(_SAFE_POLICIES):
            logger.warning(
                "Redis may evict the cluster's keys: its maxmemory-policy is %s; "
                "noeviction or one of volatile-* keeps them",
                policy,
            )

    async def _call(self, script: str, keys: list[str], arguments: list[Any]) -> list[Any]:
        self._round_trips += 1
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._link.run(script, keys, arguments)
        except TimeoutError:
            raise LinkLost("Redis does not answer") from None

    def _key(self, operation: str, kind: str = "circuit") -> str:
        return f"{self._prefix}:{kind}:{operation}"

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, LinkLost):
                self._look_now.set()
            else:
                logger.error("a task of cluster %s failed", self._name, exc_info=error)

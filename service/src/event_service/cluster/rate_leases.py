"""Rates enforced by all nodes of a cluster together, without a Redis call per request.

A node leases requests in advance: somewhat more than a client used since its last lease, never more
than a share of what remains. Below the limit nobody waits: while a lease is on its way, the node
admits a few requests on credit, which the next lease pays for. The credit of all nodes together is
a tenth of the limit, so at most 1.1 times the limit is admitted. Only a client near or over its
limit, with no credit left, waits for Redis.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Any, Protocol

from limits import RateLimitItem

from event_service.libs.rate_counts import Standing

# Share of a limit that all nodes together may admit on credit.
CREDIT = 0.1
# Seconds after which a late lease is no longer waited for.
PATIENCE = 0.05
# A node leases at most this share of what remains, divided by the number of nodes.
SHARE = 0.5

# KEYS: the window of one client at one rate. ARGV: requests let through on credit, requests
# wanted, the limit, the window in ms, nodes. Answers: granted, remaining, ms until the window ends.
# What was let through on credit is paid for even where nothing remains.
LEASE = f"""
local credit, wanted, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window, nodes = tonumber(ARGV[4]), tonumber(ARGV[5])
local used = tonumber(redis.call('GET', KEYS[1]) or '0') + credit
local remaining = math.max(0, limit - used)
local granted = math.min(wanted, remaining, math.max(1, math.floor(remaining * {SHARE} / nodes)))
local ends = redis.call('PTTL', KEYS[1])
if ends <= 0 then
    ends = window
end
redis.call('SET', KEYS[1], string.format('%.0f', used + granted), 'PX', ends)
return {{granted, remaining - granted, ends}}
"""


class Nodes(Protocol):
    """What is known about the cluster."""

    def joined(self) -> bool: ...
    def count(self) -> int:
        """Live nodes, this one included; the last known number while alone."""


Run = Callable[[str, Sequence[Any]], Awaitable[list[int]]]


class _Window:
    """What this node may still admit for one client at one rate."""

    __slots__ = ("credit", "ends", "leased", "leasing", "left", "total", "used")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.leased = 0  # requests that Redis has agreed to
        self.credit = 0  # requests let through since the last lease without its agreement
        self.used = 0  # requests let through since the last lease
        self.total = 0  # requests let through
        self.left: int | None = None  # what remained for everybody at the last lease
        self.leasing: asyncio.Task[None] | None = None


class LeasedRates:
    """Counts requests across all nodes that share a Redis; replaces `RateCounts`.

    While Redis is unavailable, each of N nodes admits an N-th of each limit. Keeps at most
    `max_windows` windows for each rate. Use from one event loop.
    """

    def __init__(
        self,
        rates: Sequence[RateLimitItem],
        *,
        run: Run,
        prefix: str,
        nodes: Nodes,
        max_windows: int,
        clock: Callable[[], float],
        patience: float = PATIENCE,
    ) -> None:
        """`run(key, arguments)` runs LEASE; OSError or TimeoutError means that Redis is
        unavailable. `patience`: seconds for which a client without credit waits for it.
        """
        self._rates = list(rates)
        self._run = run
        self._prefix = prefix
        self._nodes = nodes
        self._max_windows = max_windows
        self._clock = clock
        self._patience = patience
        self._windows: list[OrderedDict[str, _Window]] = [OrderedDict() for _ in rates]

    async def take(self, client: str, *, address: str | None = None) -> Standing:
        """Like `RateCounts.take`; waits for Redis at most 50 ms, and only without credit."""
        names = [client]
        if address is not None and client not in self._windows[0]:
            names.append(address)
        windows = [
            (index, name, self._window(index, name))
            for index in range(len(self._rates))
            for name in names
        ]
        alone = not self._nodes.joined()
        for index, name, window in windows:
            if not alone and not self._may_go(index, window):
                alone = not await self._wait_for_lease(index, name, window)
        may_go = self._may_go_alone if alone else self._may_go
        now = self._clock()
        waits = [window.ends - now for index, _, window in windows if not may_go(index, window)]
        if not waits:
            for index, name, window in windows:
                self._spend(index, name, window)
        standing = [
            (self._left(index, window), max(0.0, window.ends - now))
            for index, name, window in windows
            if name == client
        ]
        # The window may have ended during the call to Redis.
        return Standing(max(0.001, *waits) if waits else 0.0, standing)

    def _window(self, index: int, name: str) -> _Window:
        windows, now = self._windows[index], self._clock()
        window = windows.get(name)
        if window is None or window.ends <= now:
            windows.pop(name, None)
            while len(windows) >= self._max_windows:
                windows.popitem(last=False)
            window = windows[name] = _Window(now + self._rates[index].get_expiry())
        return window

    def _credit(self, index: int) -> int:
        return int(self._rates[index].amount * CREDIT / max(1, self._nodes.count()))

    def _may_go(self, index: int, window: _Window) -> bool:
        if window.leased > 0:
            return True
        return window.left != 0 and window.credit < self._credit(index)

    def _may_go_alone(self, index: int, window: _Window) -> bool:
        """Whether the request is within this node's share of the limit."""
        share = self._rates[index].amount // max(1, self._nodes.count())
        return window.total < max(1, share)

    def _spend(self, index: int, name: str, window: _Window) -> None:
        window.total += 1
        window.used += 1
        if window.leased > 0:
            window.leased -= 1
        else:
            window.credit += 1
        wants_more = window.leased <= window.used // 2 and window.left != 0
        if wants_more and self._nodes.joined():
            self._lease_soon(index, name, window)

    def _left(self, index: int, window: _Window) -> int:
        """Requests the client has left: the shared remainder plus what is leased here."""
        if window.left is None:
            return max(0, self._rates[index].amount - window.used)
        return max(0, window.left + window.leased - window.credit)

    async def _wait_for_lease(self, index: int, name: str, window: _Window) -> bool:
        """Wait for a lease, unless nothing is known to remain; whether Redis answered."""
        if window.left == 0 and window.leasing is None:
            return True
        leasing = self._lease_soon(index, name, window)
        await asyncio.wait({leasing}, timeout=self._patience)
        return leasing.done() and not leasing.cancelled() and leasing.exception() is None

    def _lease_soon(self, index: int, name: str, window: _Window) -> "asyncio.Task[None]":
        if window.leasing is None:
            window.leasing = asyncio.get_running_loop().create_task(
                self._lease(index, name, window)
            )
            window.leasing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return window.leasing

    async def _lease(self, index: int, name: str, window: _Window) -> None:
        rate = self._rates[index]
        credit, used = window.credit, window.used
        wanted = max(1, 2 * used)
        arguments = [
            credit,
            wanted,
            rate.amount,
            ceil(rate.get_expiry() * 1000),
            max(1, self._nodes.count()),
        ]
        try:
            key = f"{self._prefix}:rate:{rate.key_for(name)}"
            granted, left, ends = await self._run(key, arguments)
        finally:
            window.leasing = None
        window.credit -= credit
        window.used -= used
        window.leased += granted
        window.left = left
        window.ends = self._clock() + ends / 1000

"""The request at hand and the attempt at hand, in context variables that tasks inherit."""

import asyncio
import math
import random
from contextvars import ContextVar

from event_service.libs.time_limit import TimeLimit
from event_service.libs.trace_context import Parent

# Seconds for which no request waits. A timer cannot be set to infinity.
_LONG = 1e6


class CacheStatus:
    """How a cache took part in one reply, which may be made of several parts.

    As the reply's `Cache-Status` (RFC 9211) it is a `hit` when every part came from the cache
    without asking the source; else it went forward: `fwd=miss` when any part was not there at
    all, `fwd=stale` when parts were there, but past their time. `detail=stale-if-error` marks a
    reply with a part that was served past its time because the source failed (RFC 5861). `Age`
    is that of the oldest part that came from the cache, and `ttl` what is left of the one that
    ends first, below 0 if it has ended; without such a part there is neither.
    """

    __slots__ = ("_age", "_forwarded", "_name", "_parts", "_served_stale", "_ttl")

    def __init__(self, name: str) -> None:
        """`name` is the cache's own: a token of RFC 8941."""
        self._name = name
        self._parts = 0
        self._age = -1.0
        self._ttl = math.inf
        self._forwarded = ""
        self._served_stale = False

    def hit(self, *, age: float, ttl: float) -> None:
        """A part came from the cache; `ttl` seconds are left of it, below 0 if it is stale."""
        self._parts += 1
        self._age = max(self._age, age)
        self._ttl = min(self._ttl, ttl)
        self._served_stale |= ttl <= 0

    def forwarded(self, *, stale: bool) -> None:
        """The source was asked for a part: an old one was there (`stale`) or none (a miss)."""
        self._parts += 1
        if self._forwarded != "miss":
            self._forwarded = "stale" if stale else "miss"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """None at all while the cache took no part."""
        if not self._parts:
            return []
        from_cache = self._age >= 0
        status = [self._name, f"fwd={self._forwarded}" if self._forwarded else "hit"]
        if from_cache:
            status.append(f"ttl={math.floor(self._ttl)}")
        if self._served_stale:
            status.append("detail=stale-if-error")
        headers = [(b"cache-status", "; ".join(status).encode())]
        if from_cache:
            headers.append((b"age", str(math.floor(self._age)).encode()))
        return headers


class CallContext:
    """A request: its ids, its time limits, and what it has cost so far.

    `failed_events`: how many a partial reply could not have.
    `reply_headers` are sent with the reply, be it a result or an error. `cache_status` is set when
    the reply is to tell what caches did for it. `span` is the request's own where tracing is on,
    else None.
    At `deadline` the request ends; what it waits for must end by `answer_by`, which leaves time to
    answer. The calls that it began may go on until `latest`, the latest `answer_by` of all who
    share one of them. All are in seconds on the event loop's clock, that of `time.monotonic`.
    A valid incoming trace context is the `parent`, continued under a span id of our own: then
    `traceparent` and `tracestate` go along with every call. Without one there is only a `trace_id`,
    for the log. `sampled`: whether somebody records the trace.
    """

    __slots__ = (
        "_leaders",
        "answer_by",
        "cache_status",
        "deadline",
        "failed_events",
        "latest",
        "parent",
        "reply_headers",
        "request_id",
        "sampled",
        "span",
        "trace_id",
        "traceparent",
        "tracestate",
        "upstream_calls",
    )

    def __init__(self, request_id: str, parent: Parent | None = None) -> None:
        self.request_id = request_id
        self.deadline = self.answer_by = self.latest = math.inf
        self._leaders: tuple[CallContext, ...] = ()
        self.cache_status: CacheStatus | None = None
        self.span: object = None
        self.upstream_calls = 0
        self.failed_events = 0
        self.reply_headers: list[tuple[bytes, bytes]] = []
        self.parent = parent
        self.traceparent: str | None = None
        self.tracestate: str | None = None
        if parent is None:
            self.trace_id, self.sampled = f"{random.getrandbits(128):032x}", False
        else:
            self.trace_id, self.sampled = parent.trace_id, parent.sampled
            self.traceparent = parent.child(f"{random.getrandbits(64):016x}")
            self.tracestate = parent.state

    def set_deadline(self, at: float, *, answer_by: float) -> None:
        self.deadline, self.answer_by, self.latest = at, answer_by, answer_by

    def join(self, leader: "CallContext") -> None:
        """Wait for a call that `leader` began: let that go on for as long as this one may wait."""
        self._leaders = (*self._leaders, leader)
        leader.extend(self.latest)

    def extend(self, latest: float) -> None:
        if latest > self.latest:
            self.latest = latest
            for leader in self._leaders:
                leader.extend(latest)


class Attempt:
    """One attempt at a source, for the source to tell what it sees of it.

    `quiet_since`: when the upstream last gave a sign of life, on the event loop's clock; at first
    when the attempt began. An attempt that is cut short counts against the upstream only if it was
    quiet for long. Between `waiting` and `waited` a source waits for something of ours, such as a
    connection of its pool: that is not the upstream's time, nor a part of the attempt's limit.
    `pending`: what has not come yet, for the log. `limit.expired`: whether its time was up.
    """

    __slots__ = ("_waiting_since", "limit", "number", "pending", "quiet_since")

    def __init__(self, number: int, now: float, limit: TimeLimit) -> None:
        self.number = number  # from 1
        self.limit = limit
        self.pending = "no reply"
        self.quiet_since = now
        self._waiting_since = now

    def waiting(self) -> None:
        self._waiting_since = asyncio.get_running_loop().time()
        self.quiet_since = math.inf
        self.limit.until += _LONG

    def waited(self) -> None:
        self.quiet_since = asyncio.get_running_loop().time()
        self.limit.until += self.quiet_since - self._waiting_since - _LONG

    def heard(self) -> None:
        """The upstream gave a sign of life."""
        self.quiet_since = asyncio.get_running_loop().time()


current: ContextVar[CallContext | None] = ContextVar("call_context", default=None)
attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def answer_by() -> float:
    """When what the request at hand waits for must be over; infinity where there is no request."""
    call = current.get()
    return math.inf if call is None else call.answer_by


def latest() -> float:
    """When the call at hand must be over, whoever shares it; infinity where there is no request."""
    call = current.get()
    return math.inf if call is None else call.latest


def require() -> CallContext:
    """The request at hand; raises LookupError where there is none."""
    call = current.get()
    if call is None:
        raise LookupError("there is no request at hand")
    return call

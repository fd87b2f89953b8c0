"""The current request and the current attempt, in context variables that tasks inherit."""

import asyncio
import math
import random
from contextvars import ContextVar

from event_service.libs.time_limit import TimeLimit
from event_service.libs.trace_context import Parent

# Seconds for which no request waits. A timer cannot be set to infinity.
_LONG = 1e6


class CacheStatus:
    """How the cache took part in one reply, which may consist of several parts.

    The `Cache-Status` header (RFC 9211) says `hit` if every part came from the cache without asking
    the source. Otherwise it says `fwd=miss` if any part was absent, or `fwd=stale` if parts were
    present but expired. `detail=stale-if-error` marks a reply with an expired part that was served
    because the source failed (RFC 5861). `Age` is that of the oldest cached part; `ttl` is the time
    left of the part that expires first, negative if it has expired. Without a cached part there is
    neither.
    """

    __slots__ = ("_age", "_forwarded", "_name", "_parts", "_served_stale", "_ttl")

    def __init__(self, name: str) -> None:
        """`name` is the cache's name in the header: a token of RFC 8941."""
        self._name = name
        self._parts = 0
        self._age = -1.0
        self._ttl = math.inf
        self._forwarded = ""
        self._served_stale = False

    def hit(self, *, age: float, ttl: float) -> None:
        """A part came from the cache, with `ttl` seconds left, negative if it is stale."""
        self._parts += 1
        self._age = max(self._age, age)
        self._ttl = min(self._ttl, ttl)
        self._served_stale |= ttl <= 0

    def forwarded(self, *, stale: bool) -> None:
        """The source was asked for a part: the cache had a `stale` one or none (a miss)."""
        self._parts += 1
        if self._forwarded != "miss":
            self._forwarded = "stale" if stale else "miss"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The reply's cache headers; none while the cache took no part."""
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

    `failed_events`: how many events a partial reply lacks. `reply_headers` are sent with the reply,
    be it a result or an error. `cache_status` is set if the reply is to describe the cache's part
    in it. `span` is the request's own if tracing is on, else None.

    The request ends at `deadline`; what it waits for must end by `answer_by`, which leaves time to
    answer. The calls it began may go on until `latest`: the latest `answer_by` of all requests that
    share one of them. All are in seconds on the event loop's clock (`time.monotonic`).

    A valid incoming trace context is the `parent`, continued under a span id of our own:
    `traceparent` and `tracestate` then go with every call. Otherwise there is only a `trace_id`,
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
        """Share a call that `leader` began: it may now run for as long as this request may wait."""
        self._leaders = (*self._leaders, leader)
        leader.extend(self.latest)

    def extend(self, latest: float) -> None:
        if latest > self.latest:
            self.latest = latest
            for leader in self._leaders:
                leader.extend(latest)


class Attempt:
    """One attempt at a source, in which the source records what it observes.

    `quiet_since`: the upstream's last sign of life on the event loop's clock, initially the start
    of the attempt. An attempt that is cut short counts against the upstream only if it was quiet
    for long. Between `waiting` and `waited` the source waits for a local resource, such as a pooled
    connection: that time counts neither against the upstream nor towards the attempt's limit.
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
    """When the current request's answer is due; infinity outside a request."""
    call = current.get()
    return math.inf if call is None else call.answer_by


def latest() -> float:
    """When the current call must end, whoever shares it; infinity outside a request."""
    call = current.get()
    return math.inf if call is None else call.latest


def require() -> CallContext:
    """The current request; raises LookupError if there is none."""
    call = current.get()
    if call is None:
        raise LookupError("there is no request at hand")
    return call

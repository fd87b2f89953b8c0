"""The request at hand, carried in a context variable down to the calls it causes.

Tasks inherit it with their context, so a call shared by several requests speaks for the first.
"""

import math
import random
import re
from contextvars import ContextVar

_traceparent = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")


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
    """Who asks, for how long, and what it has cost so far.

    `reply_headers` go out with the reply, whatever that turns out to be: a result or an error.
    `cache_status` is there when somebody wants to know what caches had to do with the reply.
    `span` is the request's own in whatever traces it, None where nothing does.
    `deadline` is in seconds on the event loop's clock, which runs with `time.monotonic`.
    `trace_id` and `traceparent` follow W3C Trace Context: a valid incoming `traceparent` is
    continued under a span id of our own, anything else starts a new trace.
    """

    __slots__ = (
        "cache_status",
        "deadline",
        "reply_headers",
        "request_id",
        "span",
        "trace_id",
        "traceparent",
        "tracestate",
        "upstream_calls",
    )

    def __init__(
        self, request_id: str, traceparent: str | None = None, tracestate: str | None = None
    ) -> None:
        self.request_id = request_id
        self.deadline = math.inf
        self.cache_status: CacheStatus | None = None
        self.span: object = None
        self.upstream_calls = 0
        self.reply_headers: list[tuple[bytes, bytes]] = []
        parent = _traceparent.match(traceparent) if traceparent else None
        if parent and parent[1].strip("0") and parent[2].strip("0"):
            self.trace_id, flags, self.tracestate = parent[1], parent[3], tracestate
        else:
            self.trace_id, flags, self.tracestate = f"{random.getrandbits(128):032x}", "00", None
        self.traceparent = f"00-{self.trace_id}-{random.getrandbits(64):016x}-{flags}"


current: ContextVar[CallContext | None] = ContextVar("call_context", default=None)


def require() -> CallContext:
    """The request at hand; raises LookupError where there is none."""
    call = current.get()
    if call is None:
        raise LookupError("there is no request at hand")
    return call

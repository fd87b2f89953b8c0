"""The request at hand, carried in a context variable down to the calls it causes.

Tasks inherit it with their context, so a call shared by several requests speaks for the first.
"""

import random
import re
from contextvars import ContextVar
from math import inf

from event_service.libs.cache_status import CacheStatus

_traceparent = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")


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
        self.deadline = inf
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

from msgspec import Struct

# The route of a request whose path no route takes.
UNMATCHED = "unmatched"
# What a route puts into the scope of a request that it answers with a stream.
STREAMED = "event_service.streamed"


class RequestRecord(Struct, frozen=True, gc=False):
    """One request that is over. `route` is its route's template or UNMATCHED, never its path.

    `duration` is in seconds; that of a `streamed` reply is how long its reader stayed. `error` is
    set when the request did not end as its route meant it.
    """

    method: str
    route: str
    path: str
    status: int
    duration: float
    client: str
    request_id: str
    trace_id: str
    upstream_calls: int
    error: Exception | None
    streamed: bool = False

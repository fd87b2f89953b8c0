"""What the dashboard shows of a second. Times are in Unix seconds, durations in seconds.

Nothing in it counts on by itself: of a service where nothing happens hardly anything changes.
"""

from msgspec import Struct

OUTCOMES = ("ok", "refused", "timeout", "limited", "failed", "client")
"""How a request ended: well; refused by a breaker; too late; turned away by one of our own limits;
failed; or it was the client's mistake, or the client left."""


class Transition(Struct, frozen=True, rename="camel"):
    number: int
    at: float
    breaker: str
    old: str
    new: str
    reason: str
    worker: int = 0
    worker_number: int = 0


class FailedRequest(Struct, frozen=True, rename="camel"):
    number: int
    at: float
    outcome: str
    method: str
    path: str
    status: int
    duration: float
    request_id: str
    trace_id: str
    cause: str
    worker: int = 0
    worker_number: int = 0


class Refusals(Struct, frozen=True, rename="camel"):
    """Requests refused for one reason, by a circuit or a limit, one soon after the other.

    The first came at `began`, the last at `last`, with the id `request_id`.
    """

    began: float
    last: float
    count: int
    outcome: str
    method: str
    route: str
    status: int
    cause: str
    request_id: str


class LastFailure(Struct, frozen=True, rename="camel"):
    """`duration` is None, and `request_id` "", where they are not known."""

    what: str
    at: float
    duration: float | None
    request_id: str


class Rule(Struct, frozen=True, rename="camel"):
    """When a breaker opens: `text` for people; `value` against `threshold`, as halfopen reads it.

    `window` is None where the rule looks at calls rather than at a time.
    """

    text: str
    value: float
    threshold: float
    bad: int
    calls: int
    minimum_calls: int
    window: float | None


class Breaker(Struct, frozen=True, rename="camel"):
    """`since`: in this state. `troubled_since`: not closed, through however many states; None when
    it is. `retry_at`: when the next call may be let in, None unless it is open. `workers`: in how
    many workers it is in which state; empty where there is one. `release_at`: when its isolation
    ends by itself.
    """

    name: str
    state: str
    since: float
    troubled_since: float | None
    retry_at: float | None
    cooldown: float
    rules: list[Rule]
    failed_at: list[float]
    probes: int
    probes_allowed: int
    rejected: int
    opened: int
    last_failure: LastFailure | None
    workers: dict[str, int] = {}
    release_at: float | None = None


class Latency(Struct, frozen=True, rename="camel"):
    p50: float | None
    p95: float | None
    p99: float | None


class Endpoint(Struct, frozen=True, rename="camel"):
    """`requests` and `errors` are counts by second, the oldest first, and by stretch of time in
    `long_requests` and `long_errors`; `counts` sums two minutes by outcome; `rate` and `refused`
    (a second), `error_share` and `latency` are of the last seconds. What was refused counts as an
    error and has no latency.
    """

    method: str
    route: str
    requests: list[int]
    errors: list[int]
    long_requests: list[int]
    long_errors: list[int]
    counts: dict[str, int]
    rate: float
    error_share: float | None
    latency: Latency
    refused: float = 0.0


class Operation(Struct, frozen=True, rename="camel"):
    """Attempts at one operation of the upstream. `p50` and `p95` are by second, the oldest first,
    `long_p50` and `long_p95` by stretch of time; None where there were no attempts. `normal` is the
    usual p95 of the last quarter of an hour.
    """

    name: str
    p50: list[float | None]
    p95: list[float | None]
    long_p50: list[float | None]
    long_p95: list[float | None]
    rate: float
    error_share: float | None
    latency: Latency
    normal: float | None = None


class Upstream(Struct, frozen=True, rename="camel"):
    """`retries_left`: what the retry budget grants now. The four after it count since the start."""

    in_flight: int
    limit: int
    waiting: int
    retries_left: float
    retries: int
    gave_up: int
    shared: int
    cache_hits: int
    operations: list[Operation]


class Service(Struct, frozen=True, rename="camel"):
    """The requests to the API, and the processes that answer them.

    `shed` and `limited` are a second; `cpu` is in cores, `memory` in bytes. `loop_lag` is the worst
    of late, `steady_lag` what it came to more than once or twice.
    """

    in_flight: int
    max_in_flight: int
    shed: float
    limited: float
    error_share: float | None
    latency: Latency
    cpu: float
    memory: int
    loop_lag: float
    steady_lag: float = 0.0


class Outbox(Struct, frozen=True, rename="camel"):
    pending: int
    oldest: float


class Cluster(Struct, frozen=True, rename="camel"):
    """`joined`: all workers are."""

    joined: bool
    nodes: int


class Frame(Struct, frozen=True, rename="camel"):
    """Of one worker, or of all together. `worker` is the process that tells it, `worker_number`
    what the log calls it: another process may have had that number before.

    `recent` says how many "the last seconds" are, and how long a stretch of time is. What is told
    by second ends at `second`, what is told by stretch at `stretch`.

    `transitions` and `failures` are the newest ones, the oldest first, numbered from 1 since the
    start by each worker; `failed` is how many failures there have been, refusals aside.
    """

    number: int
    time: float
    second: float
    stretch: float
    started: float
    version: str
    environment: str
    worker: int
    worker_number: int
    workers: int
    recent: int
    rate: float
    breakers: list[Breaker]
    endpoints: list[Endpoint]
    upstream: Upstream
    transitions: list[Transition]
    failures: list[FailedRequest]
    failed: int
    service: Service
    refusals: list[Refusals] = []
    outbox: Outbox | None = None
    cluster: Cluster | None = None

"""The dashboard's data for one second. Times are in Unix seconds, durations in seconds.

No value changes just because time passes, so frames of an idle service hardly differ.
"""

from msgspec import Struct

OUTCOMES = ("ok", "refused", "timeout", "limited", "failed", "client")
"""How a request ended. `refused`: by a breaker. `limited`: by one of our own limits. `client`: the
client made a mistake or left."""


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
    """A run of requests that were refused for the same reason, by a circuit or a limit.

    The first one was at `began`. The last one was at `last`; its id is `request_id`.
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
    """`duration` is None and `request_id` is "" if they are unknown."""

    what: str
    at: float
    duration: float | None
    request_id: str


class Rule(Struct, frozen=True, rename="camel"):
    """When a breaker opens: `text` for people; `value` and `threshold` as halfopen reports them.

    `window` is None if the rule counts calls instead of time.
    """

    text: str
    value: float
    threshold: float
    bad: int
    calls: int
    minimum_calls: int
    window: float | None


class Breaker(Struct, frozen=True, rename="camel"):
    """`since`: start of this state. `troubled_since`: when it stopped being closed; None if it is
    closed. `retry_at`: when the next call may be admitted; None unless it is open. `workers`: the
    number of workers by state; empty with one worker. `release_at`: when its isolation ends
    automatically.
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
    """`requests` and `errors` are counts per second, oldest first; `long_requests` and
    `long_errors` are counts per stretch. `counts` are sums over two minutes by outcome. `rate` and
    `refused` (both per second), `error_share` and `latency` cover the last `recent` seconds.
    Refused requests count as errors and have no latency.
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
    """Attempts at one operation of the upstream. `p50` and `p95` are per second, oldest first;
    `long_p50` and `long_p95` are per stretch; None if there were no attempts. `normal` is the usual
    p95 of the last quarter of an hour.
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
    """`retries_left`: what the retry budget allows now. The next four count since the start."""

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

    `shed` and `limited` are per second; `cpu` is in cores, `memory` in bytes. `loop_lag` is the
    highest recent value; `steady_lag` leaves out single peaks.
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
    """`joined`: whether all workers have joined."""

    joined: bool
    nodes: int


class Frame(Struct, frozen=True, rename="camel"):
    """The data of one worker or of all workers. `worker` is the process id of its sender,
    `worker_number` its number in the log, which an earlier process may have had.

    `recent` is the length of "the last seconds" and of a stretch. Series per second end at
    `second`, series per stretch at `stretch`.

    `transitions` and `failures` are the newest ones, oldest first; each worker numbers its own from
    1. `failed` is the number of failures since the start, without refusals.
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

import json
import sys
from typing import Any

import pytest

from event_service import context
from event_service.context import CallContext
from event_service.dashboard.live import Identity, LiveFeed
from event_service.dashboard.live_breakers import TRANSITIONS_KEPT
from event_service.dashboard.live_failures import FAILURES_KEPT, RUN_ENDS, RUNS_KEPT
from event_service.dashboard.live_frame import LastFailure, Outbox
from event_service.errors import (
    ClientGone,
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    UserNotFound,
)
from event_service.libs.bulkhead import Bulkhead
from event_service.libs.retry import RetryBudget
from event_service.signals import (
    AdmissionBuilt,
    AttemptEnded,
    CacheHit,
    GaveUp,
    LoadShed,
    OutboxSeen,
    RateExceeded,
    RequestDone,
    Retried,
    Shared,
    Signals,
)
from halfopen import (
    CallWindow,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    SlowCallRate,
    State,
    TimeWindow,
)

USERS = "/api/getUsers"
BY_USER = "/api/getEventsByUserId/{id}"
# What the clock counts from, in Unix seconds.
EPOCH = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def feed_at(clock: Clock) -> LiveFeed:
    feed = LiveFeed(
        identity=Identity("1.2.3", "testing", 1),
        operations=["getUsers", "addEvent"],
        bulkhead=Bulkhead(10, max_waiting=5),
        budget=RetryBudget(0.1, clock=clock),
        clock=clock,
        wall_clock=lambda: EPOCH + clock.now,
    )
    feed.add_endpoint(USERS, {"GET", "HEAD"})
    feed.add_endpoint(BY_USER, {"GET"})
    return feed


def record(
    *,
    route: str = USERS,
    path: str = "/api/getUsers",
    status: int = 200,
    duration: float = 0.01,
    error: Exception | None = None,
) -> RequestDone:
    return RequestDone(
        method="GET",
        route=route,
        path=path,
        status=status,
        duration=duration,
        client="127.0.0.1",
        request_id="req-1",
        trace_id="trace-1",
        upstream_calls=1,
        error=error,
    )


def refused() -> CircuitOpen:
    return CircuitOpen("addEvent", State.OPEN, 3.0, None)


def endpoint(feed: LiveFeed, route: str = USERS) -> Any:
    return next(each for each in feed.read().endpoints if each.route == route)


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (200, None, "ok"),
        (503, refused(), "refused"),
        (504, UpstreamTimeout("getUsers", "slow", reason="slow"), "timeout"),
        (504, DeadlineExceeded("late"), "timeout"),
        (429, RateLimited("slow down", retry_after=1.0), "limited"),
        (503, Overloaded("full"), "limited"),
        (502, UpstreamFailed("getUsers", "failed", reason="status 500"), "failed"),
        (500, ValueError("a bug"), "failed"),
        (404, UserNotFound("9"), "client"),
        (499, ClientGone(), "client"),
    ],
)
def test_each_request_counts_by_how_it_ended(status, error, outcome):
    clock = Clock()
    feed = feed_at(clock)
    feed.request_done(record(status=status, error=error))
    clock.now += 1

    counts = endpoint(feed).counts

    assert {name for name, count in counts.items() if count} == {outcome}


def test_rate_and_error_share_are_of_the_last_ten_seconds():
    clock = Clock()
    feed = feed_at(clock)
    for _ in range(100):
        feed.request_done(record(status=502, error=UpstreamFailed("o", "d", reason="r")))
    clock.now += 15
    for error in (None, None, None, refused()):
        feed.request_done(record(status=503 if error else 200, error=error))
    clock.now += 1

    seen = endpoint(feed)

    assert (seen.rate, seen.error_share) == (0.4, 0.25)
    assert sum(seen.requests) == 104
    assert seen.errors[-1] == 1
    assert seen.method == "GET"


def test_a_request_for_no_route_counts_under_other_paths_whatever_its_path_begins_with():
    clock = Clock()
    feed = feed_at(clock)
    for path in ("/api/getEventsByUserId/\n", "/wp-login.php"):
        feed.request_done(record(route="unmatched", path=path, status=404))
    clock.now += 1

    counted = {each.route: each.counts["client"] for each in feed.read().endpoints}

    assert counted == {USERS: 0, BY_USER: 0, "other paths": 2}


def test_other_paths_have_no_tile_until_somebody_asks_for_one():
    assert [each.route for each in feed_at(Clock()).read().endpoints] == [USERS, BY_USER]


def test_the_services_own_pages_are_left_out():
    clock = Clock()
    feed = feed_at(clock)
    feed.request_done(record(route="/livez", path="/livez"))
    clock.now += 1

    assert feed.read().rate == 0


def test_a_failed_request_is_kept_with_its_id_and_cause():
    clock = Clock()
    feed = feed_at(clock)
    error = UpstreamFailed("addEvent", "The upstream failed.", reason="status 500")
    feed.request_done(record(status=502, duration=0.25, error=error))
    clock.now += 2

    (failure,) = feed.read().failures

    assert failure.request_id == "req-1"
    assert failure.trace_id == "trace-1"
    assert failure.cause == "addEvent: status 500"
    assert (failure.outcome, failure.status, failure.duration) == ("failed", 502, 0.25)
    assert failure.at == EPOCH + 1000


def test_what_is_kept_does_not_grow_with_failures_or_long_paths():
    clock = Clock()
    feed = feed_at(clock)
    for _ in range(1000):
        feed.request_done(record(path="/" + "x" * 100_000, status=500, error=ValueError()))

    frame = feed.read()

    assert len(frame.failures) == FAILURES_KEPT
    assert frame.failed == frame.failures[-1].number == 1000
    assert max(len(failure.path) for failure in frame.failures) == 200


def test_refusals_take_no_room_from_failures_and_are_counted_in_runs():
    clock = Clock()
    feed = feed_at(clock)
    feed.request_done(record(status=502, error=UpstreamFailed("o", "d", reason="status 500")))
    for _ in range(1000):
        feed.request_done(record(status=503, duration=0.0001, error=refused()))
    clock.now += 1

    frame = feed.read()

    assert [failure.status for failure in frame.failures] == [502]
    (run,) = frame.refusals
    assert (run.count, run.cause, run.route) == (1000, "addEvent is open", USERS)
    assert (run.began, run.last) == (EPOCH + 1000, EPOCH + 1000)
    assert frame.failed == 1


def test_refusals_after_a_pause_begin_a_new_run_and_runs_are_not_kept_without_end():
    clock = Clock()
    feed = feed_at(clock)
    feed.request_done(record(status=503, error=refused()))
    clock.now += RUN_ENDS + 1
    feed.request_done(record(status=503, error=refused()))
    assert [run.count for run in feed.read().refusals] == [1]
    for number in range(RUNS_KEPT + 5):
        error = CircuitOpen(f"breaker {number}", State.OPEN, 3.0, None)
        feed.request_done(record(status=503, error=error))

    runs = feed.read().refusals

    assert len(runs) == RUNS_KEPT
    assert runs[-1].cause == f"breaker {RUNS_KEPT + 4} is open"


def test_percentiles_are_of_what_was_carried_out_and_refusals_have_a_figure_of_their_own():
    clock = Clock()
    feed = feed_at(clock)
    for _ in range(5):
        feed.request_done(record(duration=0.5))
    for _ in range(500):
        feed.request_done(record(status=503, duration=0.0001, error=refused()))
    clock.now += 1

    seen = endpoint(feed)

    assert seen.latency.p50 == pytest.approx(0.5, rel=0.2)
    assert seen.refused == 50.0
    assert feed.read().service.latency.p50 == seen.latency.p50


class Admission:
    in_flight = 12
    max_in_flight = 100


def test_the_row_of_the_service_tells_how_full_it_is_and_what_it_turned_away():
    clock = Clock()
    feed = feed_at(clock)
    signals = Signals()
    feed.listen(signals)
    signals.emit(AdmissionBuilt(Admission()))
    signals.emit(LoadShed())
    signals.emit(RateExceeded())
    signals.emit(RateExceeded())
    signals.emit(OutboxSeen(7, 2.5))
    clock.now += 1

    frame = feed.read()

    service = frame.service
    assert (service.in_flight, service.max_in_flight) == (12, 100)
    assert (service.shed, service.limited) == (0.1, 0.2)
    assert service.memory > 1_000_000
    assert service.error_share is None
    assert (frame.outbox, frame.cluster) == (Outbox(7, 2.5), None)


def test_what_is_usual_is_still_known_after_ten_slow_minutes():
    clock = Clock()
    feed = feed_at(clock)
    signals = Signals()
    feed.listen(signals)
    for second in range(900):
        signals.emit(AttemptEnded("getUsers", "ok", 0.02 if second < 300 else 1.3))
        clock.now += 1

    users = feed.read().upstream.operations[0]

    assert users.latency.p95 == pytest.approx(1.3, rel=0.2)
    assert users.normal == pytest.approx(0.02, rel=0.2)


def test_the_last_failure_of_a_breaker_tells_what_how_long_and_whose():
    clock = Clock()
    feed = feed_at(clock)
    signals = Signals()
    feed.listen(signals)
    breaker = CircuitBreaker("addEvent", clock=clock)
    feed.watch(breaker)
    context.current.set(CallContext("req-7"))
    signals.emit(AttemptEnded("addEvent", "failed", 0.012))
    breaker.acquire().failure(UpstreamFailed("addEvent", "d", reason="status 503"))
    context.current.set(None)
    clock.now += 9

    last = feed.read().breakers[0].last_failure

    assert last == LastFailure("status 503", EPOCH + 1000, 0.012, "req-7")


def test_an_isolated_breaker_tells_until_when():
    clock = Clock()
    feed = LiveFeed(
        identity=Identity("1", "testing", 1),
        operations=[],
        bulkhead=Bulkhead(10, max_waiting=5),
        budget=RetryBudget(0.1, clock=clock),
        release_at={"addEvent": 1_060.0}.get,
        clock=clock,
    )
    for name in ("addEvent", "getUsers"):
        feed.watch(CircuitBreaker(name, clock=clock))

    assert [each.release_at for each in feed.read().breakers] == [1_060.0, None]


def test_a_kept_failure_keeps_no_error_alive():
    feed = feed_at(Clock())
    error = ValueError("a bug")
    before = sys.getrefcount(error)
    feed.request_done(record(status=500, error=error))

    assert sys.getrefcount(error) == before


def test_attempts_at_the_upstream_show_by_operation_without_the_cancelled_ones():
    clock = Clock()
    feed = feed_at(clock)
    signals = Signals()
    feed.listen(signals)
    for outcome in ("ok", "not_found", "refused", "timeout", "cancelled"):
        signals.emit(AttemptEnded("getUsers", outcome, 0.1))
    signals.emit(AttemptEnded("an operation it does not show", "ok", 0.1))
    clock.now += 1

    (users, add) = feed.read().upstream.operations

    assert (users.rate, users.error_share) == (0.4, 0.25)
    assert users.p95[-1] == pytest.approx(0.1, rel=0.2)
    assert add.error_share is None
    assert add.p95 == [None] * 120


@pytest.mark.anyio
async def test_the_upstreams_gauges_and_savings():
    clock = Clock()
    bulkhead = Bulkhead(10, max_waiting=5)
    feed = LiveFeed(
        identity=Identity("1", "testing", 1),
        operations=[],
        bulkhead=bulkhead,
        budget=RetryBudget(0.1, floor=4.0, clock=clock),
        clock=clock,
    )
    await bulkhead.acquire()
    signals = Signals()
    feed.listen(signals)
    signals.emit(Shared("getUsers", None))
    signals.emit(Shared("getUsers", None))
    signals.emit(CacheHit("getUsers"))
    signals.emit(Retried("getUsers", 1, ValueError(), 0.1))
    signals.emit(GaveUp("getUsers", 3, ValueError(), "attempts"))

    upstream = feed.read().upstream

    assert (upstream.in_flight, upstream.limit, upstream.retries_left) == (1, 10, 4.0)
    assert (upstream.shared, upstream.cache_hits) == (2, 1)
    assert (upstream.retries, upstream.gave_up) == (1, 1)


def test_a_closed_breaker_shows_its_failures_and_how_old_they_are():
    clock = Clock()
    feed = feed_at(clock)
    breaker = CircuitBreaker("addEvent", trip=FailureCount(3, within=30.0), clock=clock)
    feed.watch(breaker)
    breaker.acquire().failure()
    clock.now += 10
    breaker.acquire().failure()
    clock.now += 15

    (seen,) = feed.read().breakers

    assert (seen.state, seen.failed_at) == ("closed", [EPOCH + 1000, EPOCH + 1010])
    assert (seen.rules[0].value, seen.rules[0].threshold, seen.rules[0].window) == (2, 3, 30.0)
    assert seen.rules[0].text == "3 failures within 30 s"
    clock.now += 6
    assert feed.read().breakers[0].failed_at == [EPOCH + 1010]


def test_an_open_breaker_tells_since_when_and_until_when():
    clock = Clock()
    feed = feed_at(clock)
    breaker = CircuitBreaker(
        "addEvent", trip=FailureCount(1, within=30.0), cooldown=10.0, clock=clock
    )
    feed.watch(breaker)
    breaker.acquire().failure()
    clock.now += 12
    canary = breaker.acquire()
    probing = feed.read().breakers[0]
    canary.failure()
    clock.now += 4

    (seen,) = feed.read().breakers

    assert (probing.state, probing.probes) == ("half_open", 1)
    assert (seen.state, seen.since, seen.retry_at) == ("open", EPOCH + 1012, EPOCH + 1022)
    assert seen.troubled_since == EPOCH + 1000


def test_a_breaker_that_closed_again_starts_with_an_empty_window():
    clock = Clock()
    feed = feed_at(clock)
    breaker = CircuitBreaker(
        "addEvent", trip=FailureCount(1, within=30.0), cooldown=10.0, clock=clock
    )
    feed.watch(breaker)
    breaker.acquire().failure()
    clock.now += 10
    breaker.acquire().success()

    (seen,) = feed.read().breakers

    assert (seen.state, seen.failed_at, seen.troubled_since) == ("closed", [], None)


def test_transitions_are_kept_with_their_reasons_in_words():
    clock = Clock()
    feed = feed_at(clock)
    rule = FailureRate(0.5, over=TimeWindow(10.0), minimum_calls=2)
    breaker = CircuitBreaker("getUsers", trip=rule, cooldown=5.0, clock=clock)
    feed.watch(breaker)
    for _ in range(2):
        breaker.acquire().failure()
    clock.now += 5
    breaker.acquire().success()

    seen = [(each.old, each.new, each.reason) for each in feed.read().transitions]

    assert seen == [
        ("closed", "open", "50 % failures in 2 or more calls within 10 s"),
        ("open", "half_open", "cooldown elapsed"),
        ("half_open", "closed", "recovered"),
    ]


@pytest.mark.parametrize(
    ("rule", "text", "window", "minimum"),
    [
        (ConsecutiveFailures(3), "3 failures in a row", None, 0),
        (FailureCount(3, within=30.0), "3 failures within 30 s", 30.0, 0),
        (
            FailureRate(0.25, over=CallWindow(50), minimum_calls=10),
            "25 % failures in 10 or more calls",
            None,
            10,
        ),
        (
            SlowCallRate(0.5, slower_than=1.5, over=TimeWindow(10.0), minimum_calls=20),
            "50 % over 1.5 s in 20 or more calls within 10 s",
            10.0,
            20,
        ),
    ],
)
def test_every_rule_is_told_in_words(rule, text, window, minimum):
    feed = feed_at(Clock())
    feed.watch(CircuitBreaker("getUsers", trip=rule))

    (seen,) = feed.read().breakers[0].rules

    assert (seen.text, seen.window, seen.minimum_calls) == (text, window, minimum)


def test_no_more_than_the_latest_transitions_are_kept():
    feed = feed_at(Clock())
    breaker = CircuitBreaker("getUsers", trip=FailureCount(1, within=1.0))
    feed.watch(breaker)
    for _ in range(TRANSITIONS_KEPT):
        breaker.trip()
        breaker.reset()

    transitions = feed.read().transitions

    assert len(transitions) == TRANSITIONS_KEPT
    assert transitions[-1].number == 2 * TRANSITIONS_KEPT


def test_a_frame_is_made_once_a_second_however_often_it_is_asked_for():
    clock = Clock()
    feed = feed_at(clock)
    number, body = feed.frame()
    clock.now += 0.9
    again = feed.frame()
    clock.now += 0.2
    next_number, next_body = feed.frame()

    assert again[0] == number
    assert again[1] is body
    assert next_number == number + 1
    assert json.loads(next_body)["version"] == "1.2.3"


def test_times_stay_as_they_were_told_unless_the_clocks_part():
    clock, wall = Clock(), Clock()
    feed = LiveFeed(
        identity=Identity("1", "testing", 1),
        operations=[],
        bulkhead=Bulkhead(10, max_waiting=5),
        budget=RetryBudget(0.1, clock=clock),
        clock=clock,
        wall_clock=wall,
    )
    feed.add_endpoint(USERS, {"GET"})
    feed.request_done(record(status=500, error=ValueError()))
    told = feed.read().failures[0].at
    clock.now += 10
    wall.now += 10.5
    later = feed.read().failures[0].at
    # The machine slept: the clock of this process stood still.
    wall.now += 3600
    awake = feed.read()

    assert told == later == 1000
    assert (awake.time, awake.failures[0].at) == (wall.now, wall.now - 10)


def test_a_quarter_of_an_hour_is_told_in_stretches_of_ten_seconds():
    clock = Clock()
    feed = feed_at(clock)
    signals = Signals()
    feed.listen(signals)
    feed.request_done(record())
    feed.request_done(record(status=500, error=ValueError()))
    signals.emit(AttemptEnded("getUsers", "ok", 0.1))
    clock.now += 300
    feed.request_done(record())
    clock.now += 14

    frame = feed.read()
    seen, users = frame.endpoints[0], frame.upstream.operations[0]

    assert (frame.second, frame.stretch) == (EPOCH + 1314, EPOCH + 1310)
    assert seen.long_requests == [0] * 59 + [2] + [0] * 29 + [1]
    assert seen.long_errors == [0] * 59 + [1] + [0] * 30
    assert users.long_p95[59] == pytest.approx(0.1, rel=0.2)
    assert users.long_p50.count(None) == 89


def test_a_day_without_a_request_is_caught_up_with_at_once():
    clock = Clock()
    feed = feed_at(clock)
    feed.request_done(record())
    clock.now += 86_400

    assert not any(endpoint(feed).requests)

from msgspec.structs import replace

from event_service.dashboard.live_frame import (
    Breaker,
    Cluster,
    Endpoint,
    Frame,
    Latency,
    Outbox,
    Refusals,
    Service,
    Transition,
    Upstream,
)
from event_service.dashboard.together import merged

BREAKER = Breaker("addEvent", "closed", 995.0, None, None, 10.0, [], [], 0, 1, 2, 0, None)
ENDPOINT = Endpoint(
    *("GET", "/x", [1, 2], [0, 1], [3], [1], {"ok": 3}, 10.0, 0.1, Latency(0.1, 0.2, 0.3))
)
UPSTREAM = Upstream(1, 16, 0, 10.0, 1, 0, 0, 0, [])
SERVICE = Service(3, 4096, 0.5, 0.0, 0.1, Latency(0.1, 0.2, 0.3), 0.25, 1000, 0.01)
OPENED = Transition(1, 998.0, "addEvent", "closed", "open", "3 failures")


def frame(worker: int, **changes: object) -> Frame:
    plain = Frame(
        *(1, 1_000.0, 1_000.0, 990.0, 940.0, "1.0", "testing", 70 + worker, worker, 2, 10, 10.0),
        *([BREAKER], [ENDPOINT], UPSTREAM, [], [], 0, SERVICE),
    )
    return replace(plain, **changes)


def test_a_breaker_is_shown_in_its_worst_state_and_how_many_are_in_which():
    there = frame(2, breakers=[replace(BREAKER, state="open", retry_at=1_004.0)])

    (breaker,) = merged(frame(1), [there]).breakers

    assert (breaker.state, breaker.retry_at) == ("open", 1_004.0)
    assert breaker.workers == {"open": 1, "closed": 1}
    assert breaker.rejected == 4


def test_counts_and_rates_add_up_and_latencies_are_the_worst():
    slower = replace(ENDPOINT, rate=30.0, error_share=0.5, latency=Latency(0.2, 0.1, None))

    (endpoint,) = merged(frame(1), [frame(2, endpoints=[slower])]).endpoints

    assert (endpoint.requests, endpoint.errors) == ([2, 4], [0, 2])
    assert (endpoint.long_requests, endpoint.long_errors) == ([6], [2])
    assert (endpoint.rate, endpoint.error_share) == (40.0, 0.4)
    assert endpoint.latency == Latency(0.2, 0.2, 0.3)
    assert merged(frame(1), [frame(2)]).upstream.limit == 32


def test_what_happened_is_told_in_order_with_its_worker():
    here = frame(1, transitions=[replace(OPENED, at=999.0)])
    there = frame(2, transitions=[OPENED])

    told = merged(here, [there]).transitions

    assert [(each.worker, each.at) for each in told] == [(72, 998.0), (71, 999.0)]
    assert [each.worker_number for each in told] == [2, 1]


def test_the_row_of_the_service_adds_up_and_shows_the_worst_lag():
    there = frame(2, service=replace(SERVICE, loop_lag=0.5, steady_lag=0.2, shed=2.0))

    service = merged(frame(1), [there]).service

    assert (service.in_flight, service.max_in_flight, service.shed) == (6, 8192, 2.5)
    assert (service.cpu, service.memory) == (0.5, 2000)
    assert (service.loop_lag, service.steady_lag) == (0.5, 0.2)


def test_a_cluster_is_joined_if_all_workers_are_and_the_outbox_is_one_for_all():
    here = frame(1, outbox=Outbox(7, 3.0), cluster=Cluster(joined=True, nodes=4))
    there = frame(2, outbox=Outbox(8, 4.0), cluster=Cluster(joined=False, nodes=1))

    together = merged(here, [there])

    assert together.outbox == Outbox(8, 4.0)
    assert together.cluster == Cluster(joined=False, nodes=4)


def test_the_same_refusals_in_two_workers_are_one_run():
    run = Refusals(991.0, 999.0, 5, "refused", "POST", "/x", 503, "addEvent is open", "a")
    there = [replace(run, began=996.0, last=999.5, request_id="b"), replace(run, cause="other")]

    told = merged(frame(1, refusals=[run]), [frame(2, refusals=there)]).refusals

    assert [(each.cause, each.count, each.began) for each in told] == [
        ("addEvent is open", 10, 991.0),
        ("other", 5, 991.0),
    ]
    assert (told[0].last, told[0].request_id) == (999.5, "b")

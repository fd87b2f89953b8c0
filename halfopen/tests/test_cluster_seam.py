"""What a breaker tells and asks a coordinator, and how it follows the cluster."""

import asyncio
import gc

import pytest

from halfopen import (
    CallFailed,
    CallRejected,
    CircuitOpen,
    ConsecutiveFailures,
    Denied,
    Grant,
    ProbeExpired,
    State,
    StateChanged,
    Verdict,
)


class Cluster:
    """A coordinator that answers as it is told, and remembers what it was told."""

    def __init__(self):
        self.answer = Grant(fence=1, lease=5)
        self.told = []
        self.asked = 0
        self.waits = asyncio.Event()
        self.waits.set()
        self.on_claim = lambda: None

    def failed(self):
        self.told.append("failed")

    def tripped(self, remaining):
        self.told.append(("tripped", remaining))

    async def claim(self):
        self.asked += 1
        await self.waits.wait()
        return self.ask_now()

    def ask(self):
        self.asked += 1
        return self.ask_now()

    def ask_now(self):
        self.on_claim()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def settled(self, grant, verdict, state, remaining):
        self.told.append((grant.fence, verdict, state, remaining))

    def steered(self, state, remaining):
        self.told.append((state, remaining))


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def breaker(make, cluster):
    breaker = make(trip=ConsecutiveFailures(2), cooldown=10)
    breaker.join(cluster)
    return breaker


@pytest.fixture
def cooled(breaker, cluster, clock):
    """Open, with its cooldown over."""
    breaker.follow(1, State.OPEN, 10)
    clock.advance(10)
    cluster.answer = Grant(fence=2, lease=5)
    cluster.told.clear()
    return breaker


async def answer():
    return 42


def refusal(breaker):
    with pytest.raises(CircuitOpen) as refused:
        breaker.acquire()
    return refused.value


def arefusal(breaker):
    with pytest.raises(CircuitOpen) as refused:
        asyncio.run(breaker.acall(answer))
    return refused.value


def test_a_failure_while_closed_is_told_and_so_is_the_rule_that_tripped(breaker, cluster, fail):
    fail(breaker)
    assert cluster.told == ["failed"]
    fail(breaker)

    assert cluster.told == ["failed", "failed", ("tripped", 10)]
    assert breaker.state is State.OPEN


def test_a_healthy_call_tells_and_asks_nothing(breaker, cluster, succeed):
    succeed(breaker, 100)
    assert asyncio.run(breaker.acall(answer)) == 42

    assert cluster.told == []
    assert cluster.asked == 0


@pytest.mark.parametrize("style", ["acall", "decorator", "guard", "generator"])
def test_a_caller_who_can_wait_waits_for_the_grant(cooled, cluster, style):
    async def aguard():
        async with cooled.guard():
            return await answer()

    async def generate():
        async for item in cooled(stream)():
            assert item == 42
        return 42

    async def stream():
        yield 42

    styles = {
        "acall": lambda: cooled.acall(answer),
        "decorator": cooled(answer),
        "guard": aguard,
        "generator": generate,
    }

    async def main():
        cluster.waits.clear()
        waiting = asyncio.create_task(styles[style]())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(3):
            assert refusal(cooled).state is State.HALF_OPEN
        assert cluster.asked == 1
        cluster.waits.set()
        return await waiting

    assert asyncio.run(main()) == 42
    assert cooled.state is State.CLOSED
    assert cooled.epoch == 2
    assert cluster.told == [(2, Verdict.SUCCESS, State.CLOSED, 0)]


def test_a_caller_who_cannot_wait_takes_the_grant_that_is_there(cooled, cluster, clock):
    cluster.answer = Denied(0.25)
    assert refusal(cooled).retry_after == 0.25

    clock.advance(0.25)
    cluster.answer = Grant(fence=2, lease=5)

    assert cooled.call(int) == 0
    assert cluster.asked == 2


def test_a_denial_holds_the_slot_for_as_long_as_it_says(cooled, cluster, clock):
    cluster.answer = Denied(3)

    assert arefusal(cooled).retry_after == 3
    clock.advance(2)
    assert arefusal(cooled).retry_after == 1
    assert cluster.asked == 1
    clock.advance(1)
    cluster.answer = Grant(fence=2, lease=5)

    assert cooled.call(int) == 0
    assert cluster.asked == 2
    assert cooled.state is State.CLOSED


def test_a_failed_probe_is_told_with_its_new_cooldown(cooled, cluster, fail):
    fail(cooled)

    assert cluster.told == [(2, Verdict.FAILURE, State.OPEN, 10)]


@pytest.mark.parametrize("end", ["ignore", "forget"])
def test_a_probe_without_a_verdict_is_neutral(cooled, cluster, end):
    probe = cooled.acquire()

    if end == "ignore":
        assert probe.ignore()
    del probe
    gc.collect()

    assert cluster.told == [(2, Verdict.NEUTRAL, State.HALF_OPEN, 0)]


def test_a_cancelled_claim_frees_the_slot_at_once(cooled, cluster):
    async def main():
        cluster.waits.clear()
        waiting = asyncio.create_task(cooled.acall(answer))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        cluster.waits.set()
        return await cooled.acall(answer)

    assert asyncio.run(main()) == 42


def test_a_cancelled_probe_is_neutral_at_once(cooled, cluster):
    async def main():
        probe = asyncio.create_task(cooled.acall(asyncio.Event().wait))
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe

    asyncio.run(main())
    assert cluster.told == [(2, Verdict.NEUTRAL, State.HALF_OPEN, 0)]
    assert cooled.acquire().success()


def test_a_grant_that_came_after_its_lease_starts_no_call(cooled, cluster, clock):
    cluster.on_claim = lambda: clock.advance(5)

    assert arefusal(cooled).state is State.HALF_OPEN

    assert cluster.told == [(2, Verdict.NEUTRAL, State.HALF_OPEN, 0)]


def test_the_lease_counts_from_before_the_question(cooled, cluster, clock):
    cluster.on_claim = lambda: clock.advance(4)
    probe = cooled.acquire()
    cluster.on_claim = lambda: None

    assert refusal(cooled).retry_after == 1
    assert probe.success()


def test_a_verdict_after_the_lease_is_void(cooled, cluster, clock):
    probe = cooled.acquire()
    clock.advance(5)

    assert not probe.success()

    assert cluster.told == [(2, Verdict.NEUTRAL, State.HALF_OPEN, 0)]


def test_a_grant_older_than_the_breakers_epoch_is_void(cooled, cluster):
    cluster.on_claim = lambda: cooled.follow(3, State.OPEN, 7)

    refused = arefusal(cooled)

    assert (refused.state, refused.retry_after) == (State.OPEN, 7)
    assert cluster.told == [(2, Verdict.NEUTRAL, State.OPEN, 0)]


def test_news_of_ones_own_grant_may_come_before_or_after_the_grant(cooled, cluster):
    cluster.on_claim = lambda: cooled.follow(2, State.HALF_OPEN, 5)
    probe = cooled.acquire()
    assert not cooled.follow(2, State.HALF_OPEN, 5)

    assert refusal(cooled).state is State.HALF_OPEN
    assert probe.success()
    assert cooled.state is State.CLOSED


@pytest.mark.parametrize("asked", ["acquire", "acall"])
def test_a_caller_is_let_in_if_the_cluster_closed_the_circuit_meanwhile(cooled, cluster, asked):
    cluster.answer = Denied(0)
    cluster.on_claim = lambda: cooled.follow(2, State.CLOSED)

    if asked == "acquire":
        assert cooled.acquire().success()
    else:
        assert asyncio.run(cooled.acall(answer)) == 42

    assert cluster.told == []


def test_a_grant_for_a_circuit_that_was_reset_meanwhile_is_given_back(cooled, cluster):
    cluster.on_claim = cooled.reset

    assert asyncio.run(cooled.acall(answer)) == 42

    assert cluster.told == [(State.CLOSED, 0), (2, Verdict.NEUTRAL, State.CLOSED, 0)]


def test_the_probe_of_another_node_is_waited_for(cooled, cluster, clock):
    assert cooled.follow(2, State.HALF_OPEN, 4)

    assert refusal(cooled).retry_after == 4
    assert cluster.asked == 0
    clock.advance(4)
    cluster.answer = Grant(fence=3, lease=5)
    assert cooled.acquire().success()


def test_to_follow_is_idempotent_and_older_epochs_are_ignored(breaker, clock):
    assert breaker.follow(5, State.OPEN, 10)
    clock.advance(3)

    assert not breaker.follow(5, State.OPEN, 10)
    assert not breaker.follow(4, State.CLOSED)

    assert refusal(breaker).retry_after == 7
    assert breaker.follow(6, State.CLOSED)
    assert breaker.state is State.CLOSED
    assert breaker.epoch == 6


def test_following_into_the_closed_state_keeps_the_counts(breaker, fail):
    fail(breaker)

    assert breaker.follow(1, State.CLOSED)

    assert breaker.snapshot().rules[0].value == 1


def test_calls_from_before_a_change_by_the_cluster_do_not_count(cooled, cluster):
    probe = cooled.acquire()
    cooled.follow(3, State.OPEN, 10)

    assert not probe.success()

    assert cooled.state is State.OPEN
    assert cluster.told == [(2, Verdict.NEUTRAL, State.OPEN, 10)]


def test_an_operators_isolation_stays_and_leads_to_where_the_cluster_is(breaker, clock):
    handle = breaker.isolate()
    assert breaker.follow(1, State.CLOSED)
    assert breaker.follow(2, State.OPEN, 10)
    assert breaker.state is State.ISOLATED
    clock.advance(4)

    handle.release()

    assert breaker.state is State.OPEN
    assert refusal(breaker).retry_after == 6


def test_the_cluster_isolates_until_it_says_otherwise(breaker):
    assert breaker.follow(1, State.ISOLATED)
    assert refusal(breaker).state is State.ISOLATED

    handle = breaker.isolate()
    breaker.follow(2, State.CLOSED)
    assert breaker.state is State.ISOLATED
    handle.release()

    assert breaker.state is State.CLOSED


def test_what_an_operator_does_is_told(breaker, cluster):
    breaker.trip()
    breaker.trip(60)
    breaker.reset()
    first, second = breaker.isolate(), breaker.isolate()
    first.release()
    second.release()

    assert cluster.told == [
        (State.OPEN, 10),
        (State.OPEN, 60),
        (State.CLOSED, 0),
        (State.ISOLATED, 0),
        (State.CLOSED, 0),
    ]


def test_what_the_cluster_says_is_not_told_back(breaker, cluster):
    for epoch, state in enumerate([*State, State.CLOSED], start=1):
        breaker.follow(epoch, state, 1)

    assert cluster.told == []


@pytest.mark.parametrize("asked", ["acquire", "acall"])
def test_a_coordinator_that_raises_denies_and_is_logged(cooled, cluster, asked, caplog):
    cluster.answer = ZeroDivisionError()

    (refusal if asked == "acquire" else arefusal)(cooled)

    assert "of a coordinator raised" in caplog.records[0].message
    cluster.answer = Grant(fence=2, lease=5)
    assert cooled.call(int) == 0


def test_a_coordinator_that_raises_affects_no_call(breaker, cluster, fail, caplog):
    cluster.told = None

    fail(breaker, 2)

    assert breaker.state is State.OPEN
    assert "failed() of a coordinator raised" in caplog.records[0].message


def test_a_breaker_joins_one_cluster_and_may_leave_it(make, cluster, clock):
    breaker = make(cooldown=10)
    leave = breaker.join(cluster)
    with pytest.raises(RuntimeError, match="joined"):
        breaker.join(cluster)

    leave()
    leave()
    breaker.trip()
    clock.advance(10)

    assert breaker.acquire().success()
    assert cluster.told == []
    assert cluster.asked == 0


def test_a_breaker_that_leaves_keeps_no_isolation_of_the_cluster(make, cluster):
    breaker = make()
    leave = breaker.join(cluster)
    breaker.follow(1, State.ISOLATED)

    leave()

    assert breaker.state is State.CLOSED


def test_a_refused_claim_is_told_as_a_rejection(cooled, cluster):
    told = []
    cooled.on(CallRejected, told.append)
    cluster.answer = Denied(2)

    refusal(cooled)

    assert told == [CallRejected(cooled, State.HALF_OPEN, 2)]


def test_changes_by_the_cluster_name_it(breaker):
    changes = []
    breaker.on(StateChanged, changes.append)

    breaker.follow(1, State.OPEN, 1)
    breaker.follow(2, State.ISOLATED)
    breaker.follow(3, State.CLOSED)

    assert [(change.new, change.reason) for change in changes] == [
        (State.OPEN, "followed the cluster"),
        (State.ISOLATED, "followed the cluster"),
        (State.CLOSED, "followed the cluster"),
    ]


@pytest.mark.parametrize(("epoch", "remaining"), [(0, 1), (-1, 1), (1, -1)])
def test_an_epoch_is_a_whole_number_above_0(breaker, epoch, remaining):
    with pytest.raises(ValueError, match=r"^(epoch|remaining) must be"):
        breaker.follow(epoch, State.OPEN, remaining)


def test_a_success_emits_no_event_although_a_rule_counts_it(breaker, cluster, fail, succeed):
    fail(breaker)
    succeed(breaker)

    assert cluster.told == ["failed"]


def test_a_probe_that_ends_after_its_breaker_left_tells_nothing(make, cluster, clock):
    breaker = make()
    leave = breaker.join(cluster)
    breaker.follow(1, State.OPEN, 10)
    clock.advance(10)
    cluster.answer = Grant(fence=2, lease=5)
    probe = breaker.acquire()
    leave()

    assert probe.ignore()

    assert cluster.told == []


def test_in_shadow_mode_a_denied_probe_runs_and_counts_nowhere(make, cluster, clock):
    breaker = make(shadow=True)
    breaker.join(cluster)
    breaker.follow(1, State.OPEN, 10)
    clock.advance(10)
    cluster.answer = Denied(2)

    assert breaker.call(int, "42") == 42
    assert asyncio.run(breaker.acall(answer)) == 42

    assert breaker.state is State.HALF_OPEN
    assert breaker.snapshot().rejected == 2


def test_a_granted_probe_may_start_only_if_it_can_end_within_its_lease(cooled, clock):
    probe = cooled.acquire()

    assert probe.may_start(takes=4)
    clock.advance(1)
    assert not probe.may_start(takes=4)
    assert probe.may_start()
    clock.advance(4)
    assert not probe.may_start()


def test_a_probe_that_lost_its_slot_may_not_start(make, clock):
    breaker = make(trip=ConsecutiveFailures(2), cooldown=10, probe_timeout=3)
    breaker.trip()
    clock.advance(10)
    probe = breaker.acquire()

    assert probe.may_start(takes=60)
    clock.advance(3)
    assert not probe.may_start()


def test_a_call_may_not_start_once_it_is_settled_or_the_circuit_has_changed(make):
    breaker = make(trip=ConsecutiveFailures(2), cooldown=10)
    settled, late = breaker.acquire(), breaker.acquire()
    assert settled.may_start()
    settled.success()
    assert not settled.may_start()
    breaker.trip()

    assert not late.may_start()


def test_in_shadow_mode_any_call_may_start(make):
    breaker = make(trip=ConsecutiveFailures(2), cooldown=10, shadow=True)
    breaker.trip()

    assert breaker.acquire().may_start()


@pytest.mark.parametrize(
    "state", [State.OPEN, State.HALF_OPEN, State.ISOLATED, State.CLOSED], ids=str
)
def test_a_state_that_is_followed_begins_when_it_is_heard_of(make, clock, state):
    breaker = make()
    breaker.follow(1, State.OPEN if state is not State.OPEN else State.HALF_OPEN, 60)
    clock.advance(3)

    breaker.follow(2, state, 60)
    clock.advance(4)

    assert breaker.state is state
    assert breaker.snapshot().in_state_for == 4


def test_an_opening_that_is_followed_counts_once(breaker):
    breaker.follow(1, State.OPEN, 10)
    breaker.follow(2, State.OPEN, 10)
    assert breaker.snapshot().opened == 1

    breaker.follow(3, State.HALF_OPEN, 10)
    assert breaker.snapshot().opened == 1
    breaker.follow(4, State.OPEN, 10)

    assert breaker.snapshot().opened == 2


def test_what_opened_the_circuit_is_still_named_when_the_cluster_agrees(breaker, fail):
    fail(breaker, 2)

    breaker.follow(1, State.OPEN, 10)

    assert str(refusal(breaker).last_failure) == "down"


def test_an_open_circuit_has_no_probes_of_other_nodes(breaker):
    breaker.follow(1, State.OPEN, 10)

    assert breaker.snapshot().probes == 0


def test_a_probe_of_another_node_that_takes_no_time_holds_no_slot(cooled):
    cooled.follow(2, State.HALF_OPEN, 0)

    assert cooled.snapshot().probes == 0
    assert cooled.acquire().success()


def test_the_expired_probe_of_another_node_is_told_there_and_not_here(cooled, clock):
    told = []
    cooled.on(ProbeExpired, told.append)
    cooled.follow(2, State.HALF_OPEN, 3)
    assert cooled.snapshot().probes == 1
    clock.advance(3)

    assert cooled.acquire().success()

    assert told == []


def test_an_isolation_over_another_nodes_probe_leads_to_its_end(cooled, clock):
    cooled.follow(2, State.HALF_OPEN, 7)
    changes = []
    cooled.on(StateChanged, changes.append)

    isolation = cooled.isolate()
    clock.advance(3)
    isolation.release()

    assert cooled.state is State.OPEN
    assert cooled.snapshot().retry_after == 4
    assert [change.reason for change in changes] == ["isolated by hand", "released by hand"]


def test_a_probe_after_an_isolation_has_the_usual_time(make, clock):
    breaker, told = make(cooldown=10), []
    breaker.on(ProbeExpired, told.append)
    with breaker.isolate():
        breaker.follow(1, State.OPEN, 5)
    clock.advance(5)

    probe = breaker.acquire()
    clock.advance(9.9)
    refusal(breaker)
    assert told == []
    clock.advance(0.1)
    another = breaker.acquire()

    assert len(told) == 1
    assert probe.success()
    assert not another.success()


def test_leaving_says_so_and_ends_the_clusters_isolation_at_that_moment(make, cluster, clock):
    breaker, changes = make(), []
    leave = breaker.join(cluster)
    breaker.follow(1, State.ISOLATED)
    breaker.on(StateChanged, changes.append)
    clock.advance(5)

    leave()
    clock.advance(2)

    assert breaker.snapshot().in_state_for == 2
    assert [change.reason for change in changes] == ["left the cluster"]


def test_a_failure_is_told_to_the_cluster_and_to_listeners(breaker, cluster, fail):
    told = []
    breaker.on(CallFailed, told.append)

    fail(breaker)

    assert len(told) == 1
    assert cluster.told == ["failed"]

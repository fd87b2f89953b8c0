"""What both stores promise, tried on both."""

import asyncio
from collections import Counter

import pytest

from event_service.errors import IdempotencyKeyReused, Overloaded
from event_service.outbox.records import (
    Accepted,
    Outcome,
    Progress,
    State,
    Step,
    Then,
)
from event_service.outbox.store import AHEAD, KEEP_FAILED, LEASE

from .stores import entry

pytestmark = pytest.mark.anyio


def ids(deliveries):
    return [each.id for each in deliveries]


def step(claim, then, **fields):
    return Step(claim.user_id, claim.token, claim.seen, then, **fields)


def delivered(claim, place=0, **fields):
    return Outcome(claim.queued[place].seq, State.DELIVERED, event_id="e", **fields)


async def claimed(store, owner="me", limit=10):
    return await store.claim(owner, limit)


async def test_what_was_accepted_can_be_found(store):
    new = entry("7", client="c", traceparent="00-a-b-00", body=b'{"title":"\\u0000"}')
    assert await store.accept([new]) == [Accepted(new.id, State.QUEUED, new=True)]
    found = await store.find(new.id)
    assert (found.user_id, found.client, found.body) == ("7", "c", new.body)
    assert (found.upstream_key, found.request_id) == (new.upstream_key, new.request_id)
    assert (found.state, found.attempts, found.finished_at) == (State.QUEUED, 0, None)
    assert found.give_up_at - found.accepted_at == pytest.approx(1_000, abs=1)
    assert await store.find("nothing") is None


async def test_a_lane_has_its_events_in_the_order_of_their_acceptance(store):
    mine = [entry("a") for _ in range(3)]
    other = entry("b")
    await store.accept([mine[0], other, mine[1]])
    await store.accept([mine[2]])
    lanes = {claim.user_id: claim for claim in await claimed(store)}
    assert ids(lanes["a"].queued) == ids(mine)
    assert ids(lanes["b"].queued) == [other.id]
    assert lanes["a"].complete
    assert not lanes["a"].resumed


async def test_the_same_key_and_body_is_the_same_delivery(store):
    first = entry(id="x", idem_key="k")
    again = entry(id="x", idem_key="k")
    (accepted,) = await store.accept([first])
    assert accepted.new
    assert await store.accept([again]) == [Accepted("x", State.QUEUED, new=False)]
    assert len(await store.page(state=None, user_id=None, before=None, limit=10)) == 1


async def test_the_same_key_with_another_body_is_refused(store):
    await store.accept([entry(id="x", idem_key="k")])
    (refusal,) = await store.accept([entry("2", id="y", idem_key="k", fingerprint=b"other")])
    assert isinstance(refusal, IdempotencyKeyReused)


async def test_the_same_key_twice_in_one_batch_is_one_delivery(store):
    same = [entry(id="x", idem_key="k") for _ in range(3)]
    other = entry(id="x", idem_key="k", fingerprint=b"other")
    first, *rest, refusal = await store.accept([*same, other])
    assert first == Accepted("x", State.QUEUED, new=True)
    assert rest == [Accepted("x", State.QUEUED, new=False)] * 2
    assert isinstance(refusal, IdempotencyKeyReused)


async def test_the_same_key_from_many_workers_is_one_delivery(database, store):
    async with database.store() as b, database.store() as c, database.store() as d:
        results = await asyncio.gather(
            *(
                each.accept([entry(id="x", idem_key="k"), entry(str(n), id=f"own-{n}")])
                for n, each in enumerate([store, b, c, d] * 25)
            )
        )
    outcomes = Counter(first.new for first, _ in results)
    assert outcomes == {True: 1, False: 99}
    assert {first.id for first, _ in results} == {"x"}
    assert all(own.new for _, own in results)


async def test_a_key_is_known_after_its_delivery(store):
    await store.accept([entry(id="x", idem_key="k")])
    (claim,) = await claimed(store)
    await store.advance([step(claim, Then.LEAVE, outcome=delivered(claim))])
    assert await store.accept([entry(id="x", idem_key="k")]) == [
        Accepted("x", State.DELIVERED, new=False)
    ]


async def test_nothing_new_is_accepted_above_the_limit(database):
    async with database.store(limit=3) as store:
        first = [entry(id="x", idem_key="k"), entry(), entry()]
        assert all(each.new for each in await store.accept(first))
        known, refused = await store.accept([entry(id="x", idem_key="k"), entry()])
        assert known == Accepted("x", State.QUEUED, new=False)
        assert isinstance(refused, Overloaded)
        assert refused.retry_after > 0
        (claim,) = await claimed(store)
        await store.advance([step(claim, Then.KEEP, outcome=delivered(claim))])
        assert [each.new for each in await store.accept([entry()])] == [True]


async def test_a_batch_is_accepted_as_far_as_there_is_room(database):
    async with database.store(limit=2) as store:
        results = await store.accept([entry() for _ in range(4)])
        assert [isinstance(each, Accepted) for each in results] == [True, True, False, False]


async def test_with_a_large_limit_it_is_counted_near_the_limit_alone(database):
    async with database.store(limit=2_000) as store, database.store(limit=2_000) as other:
        for _ in range(3):
            await store.accept([entry() for _ in range(500)])
        await other.accept([entry() for _ in range(400)])
        # Not known here yet: another process took them.
        results = await store.accept([entry() for _ in range(500)])
        assert sum(isinstance(each, Accepted) for each in results) == 100


async def test_a_claimed_lane_is_nobody_elses(database, store):
    await store.accept([entry()])
    async with database.store() as other:
        assert len(await claimed(store)) == 1
        assert await claimed(other, "other") == []


async def test_each_lane_is_claimed_once_by_many_workers(database, store):
    await store.accept([entry(str(user)) for user in range(100)])
    async with database.store() as b, database.store() as c, database.store() as d:
        taken = await asyncio.gather(
            *(
                each.claim(str(owner), 7)
                for _ in range(8)
                for owner, each in enumerate([store, b, c, d])
            )
        )
    users = [claim.user_id for claims in taken for claim in claims]
    assert sorted(users) == sorted(map(str, range(100)))


async def test_an_owner_that_is_silent_for_a_lease_loses_its_lane(database, store):
    await store.accept([entry()])
    (old,) = await claimed(store, "paused")
    await database.age(LEASE - 1)
    assert await claimed(store, "next") == []
    await database.age(2)
    (new,) = await claimed(store, "next")
    assert new.token > old.token
    assert new.resumed
    late = step(old, Then.LEAVE, outcome=delivered(old))
    assert await store.advance([late]) == [Progress.FENCED]
    assert (await store.find(old.queued[0].id)).state is State.QUEUED
    mine = step(new, Then.LEAVE, outcome=delivered(new))
    assert await store.advance([mine]) == [Progress.LEFT]
    assert (await store.find(old.queued[0].id)).state is State.DELIVERED


async def test_work_on_a_lane_begins_its_lease_anew(database, store):
    await store.accept([entry(), entry()])
    (claim,) = await claimed(store)
    await database.age(LEASE - 1)
    kept = step(claim, Then.KEEP, outcome=delivered(claim))
    assert await store.advance([kept]) == [Progress.KEPT]
    await database.age(LEASE - 1)
    assert await claimed(store, "other") == []


async def test_a_lane_is_not_left_while_something_has_come_in(store):
    await store.accept([entry()])
    (claim,) = await claimed(store)
    late = entry()
    await store.accept([late])
    done = step(claim, Then.LEAVE, outcome=delivered(claim))
    assert await store.advance([done]) == [Progress.MORE]
    claim = await store.queued(claim)
    assert ids(claim.queued) == [late.id]
    assert await store.advance([step(claim, Then.LEAVE, outcome=delivered(claim))]) == [
        Progress.LEFT
    ]
    assert await claimed(store) == []


async def test_a_lane_that_was_left_is_woken_by_the_next_event(store):
    await store.accept([entry()])
    (claim,) = await claimed(store)
    await store.advance([step(claim, Then.LEAVE, outcome=delivered(claim))])
    new = entry()
    await store.accept([new])
    (claim,) = await claimed(store)
    assert ids(claim.queued) == [new.id]
    assert not claim.resumed


async def test_a_lane_rests_even_if_something_comes_in(database, store):
    await store.accept([entry()])
    (claim,) = await claimed(store)
    failed = Outcome(claim.queued[0].seq, State.QUEUED, failures=1, last_error=b"{}")
    await store.advance([step(claim, Then.REST, outcome=failed, rest=60)])
    await store.accept([entry()])
    await database.age(58)
    assert await claimed(store) == []
    await database.age(3)
    (claim,) = await claimed(store)
    assert [each.attempts for each in claim.queued] == [1, 0]
    assert [each.failures for each in claim.queued] == [1, 0]
    assert claim.queued[0].last_error == b"{}"
    assert not claim.resumed


async def test_a_long_lane_is_read_in_parts(store):
    new = [entry() for _ in range(AHEAD + 5)]
    await store.accept(new)
    (claim,) = await claimed(store)
    assert ids(claim.queued) == ids(new[:AHEAD])
    assert not claim.complete
    for place in range(AHEAD):
        await store.advance([step(claim, Then.KEEP, outcome=delivered(claim, place))])
    claim = await store.queued(claim)
    assert ids(claim.queued) == ids(new[AHEAD:])
    assert claim.complete


async def test_steps_of_many_lanes_go_together(store):
    await store.accept([entry(str(user)) for user in range(20)])
    claims = await claimed(store, limit=20)
    left, kept, gone = claims[:9], claims[9:19], claims[19]
    made = await store.advance(
        [
            *(step(claim, Then.LEAVE, outcome=delivered(claim)) for claim in left),
            *(step(claim, Then.KEEP) for claim in kept),
            Step(gone.user_id, gone.token + 1, gone.seen, Then.LEAVE, delivered(gone)),
            Step("nobody", 1, 1, Then.LEAVE),
        ]
    )
    assert made == [Progress.LEFT] * 9 + [Progress.KEPT] * 10 + [Progress.FENCED] * 2
    assert (await store.figures()).pending == 11


async def test_an_outcome_says_when_and_how_it_ended(store):
    await store.accept([entry()])
    (claim,) = await claimed(store)
    refused = Outcome(claim.queued[0].seq, State.REFUSED, last_error=b'{"status":422}')
    await store.advance([step(claim, Then.LEAVE, outcome=refused)])
    found = await store.find(claim.queued[0].id)
    assert (found.state, found.attempts, found.failures) == (State.REFUSED, 1, 0)
    assert found.last_error == b'{"status":422}'
    assert found.finished_at >= found.accepted_at


async def test_figures_are_of_what_is_queued(database, store):
    assert await store.figures() == (0, 0)
    await store.accept([entry("a"), entry("b"), entry("b")])
    await database.age(100)
    (claim, *_) = await claimed(store, limit=1)
    await store.advance([step(claim, Then.KEEP, outcome=delivered(claim))])
    figures = await store.figures()
    assert figures.pending == 2
    assert figures.oldest == pytest.approx(100, abs=5)


async def test_a_page_has_the_newest_first(store):
    new = [entry("a" if n % 2 else "b") for n in range(6)]
    await store.accept(new)
    first = await store.page(state=None, user_id=None, before=None, limit=2)
    assert ids(first) == ids([new[5], new[4]])
    second = await store.page(state=None, user_id=None, before=first[-1].seq, limit=2)
    assert ids(second) == ids([new[3], new[2]])
    of_b = await store.page(state=State.QUEUED, user_id="b", before=None, limit=10)
    assert ids(of_b) == ids([new[4], new[2], new[0]])
    assert await store.page(state=State.DEAD, user_id=None, before=None, limit=10) == []


async def test_what_is_dead_can_be_queued_again_at_its_old_place(database, store):
    first, second = entry(), entry()
    await store.accept([first, second])
    (claim,) = await claimed(store)
    dead = Outcome(claim.queued[0].seq, State.DEAD, attempts=20, failures=20, last_error=b"{}")
    await store.advance([step(claim, Then.REST, outcome=dead)])
    assert not await store.retry(second.id)
    assert not await store.retry("nothing")
    await database.age(900)
    assert await store.retry(first.id)
    (claim,) = await claimed(store)
    assert ids(claim.queued) == ids([first, second])
    again = claim.queued[0]
    assert (again.state, again.failures, again.finished_at) == (State.QUEUED, 0, None)
    assert again.attempts == 20
    assert again.give_up_at - again.accepted_at == pytest.approx(1_900, abs=5)


async def test_an_owner_at_work_notices_what_was_queued_again(store):
    first, second = entry(), entry()
    await store.accept([first, second])
    (claim,) = await claimed(store)
    dead = Outcome(claim.queued[0].seq, State.DEAD)
    await store.advance([step(claim, Then.KEEP, outcome=dead)])
    assert await store.retry(first.id)
    done = step(claim, Then.LEAVE, outcome=delivered(claim, 1))
    assert await store.advance([done]) == [Progress.MORE]
    assert ids((await store.queued(claim)).queued) == [first.id]


async def test_what_is_dropped_is_gone(store):
    new = entry()
    await store.accept([new])
    (claim,) = await claimed(store)
    assert await store.drop(new.id)
    assert not await store.drop(new.id)
    assert await store.find(new.id) is None
    # Its owner may be at work on it all the same.
    done = step(claim, Then.LEAVE, outcome=delivered(claim))
    assert await store.advance([done]) == [Progress.LEFT]


async def test_what_is_done_is_forgotten_in_time_and_what_failed_later(database, store):
    new = {state: entry(state) for state in State}
    await store.accept(list(new.values()))
    for claim in await claimed(store):
        if claim.user_id != State.QUEUED:
            outcome = Outcome(claim.queued[0].seq, State(claim.user_id))
            await store.advance([step(claim, Then.LEAVE, outcome=outcome)])

    async def kept():
        return {state for state in State if await store.find(new[state].id) is not None}

    assert await store.purge(keep=100) == 0
    await database.age(101)
    assert await store.purge(keep=100) == 1
    assert await kept() == {State.QUEUED, State.REFUSED, State.DEAD}
    await database.age(KEEP_FAILED)
    assert await store.purge(keep=100) == 2
    assert await kept() == {State.QUEUED}


async def test_idle_lanes_are_forgotten_and_their_tokens_never_come_again(database, store):
    await store.accept([entry("idle"), entry("busy")])
    old = {claim.user_id: claim for claim in await claimed(store)}
    idle = old["idle"]
    await store.advance([step(idle, Then.LEAVE, outcome=delivered(idle))])
    await database.age(LEASE + 200)
    await store.purge(keep=100)
    assert await database.execute("SELECT user_id FROM lane") in ([("busy",)], [["busy"]])
    await store.accept([entry("idle")])
    new = {claim.user_id: claim for claim in await claimed(store)}
    assert new["idle"].token > idle.token


async def test_an_event_that_comes_while_its_lane_is_left_is_never_stranded(database, store):
    """The lane is left by one worker in the very moment in which another accepts for it."""
    async with database.store() as other:
        for round_ in range(30):
            await store.accept([entry("u")])
            (claim,) = await claimed(store)
            done = step(claim, Then.LEAVE, outcome=delivered(claim))
            late = entry("u")
            (made,), _ = await asyncio.gather(store.advance([done]), other.accept([late]))
            if made is Progress.MORE:
                claim = await store.queued(claim)
            else:
                (claim,) = await claimed(store)
            assert ids(claim.queued) == [late.id], f"stranded in round {round_}"
            assert await store.advance([step(claim, Then.LEAVE, outcome=delivered(claim))]) == [
                Progress.LEFT
            ]
            await store.purge(keep=0)


async def test_order_per_user_is_the_order_of_commits_over_many_workers(database, store):
    """What one request saw accepted before it was sent has a lower `seq`."""
    async with database.store() as other:
        for n in range(40):
            first, second = entry("u"), entry("u")
            crowd = [entry(str(user)) for user in range(5)]
            await asyncio.gather(
                store.accept([*crowd, first]), other.accept([entry("u"), *reversed(crowd_of(n))])
            )
            await other.accept([second])
            assert (await store.find(first.id)).seq < (await store.find(second.id)).seq


def crowd_of(number):
    return [entry(str(user), id=f"crowd-{number}-{user}") for user in range(5)]


async def test_workers_whose_batches_have_the_same_users_do_not_wait_for_each_other(
    database, store
):
    users = [str(n) for n in range(30)]
    async with database.store() as other:
        await asyncio.gather(
            *(
                each.accept([entry(user) for user in order])
                for _ in range(10)
                for each, order in ((store, users), (other, users[::-1]))
            )
        )
    assert (await store.figures()).pending == 600

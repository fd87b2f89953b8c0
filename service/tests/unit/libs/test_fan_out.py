import asyncio
import contextlib
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.fan_out import fan_out, fan_out_settled

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("gather", [fan_out, fan_out_settled])


async def turns(count=5):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Source:
    """Looks keys up, each until the test lets it go; counts how many at once."""

    def __init__(self):
        self.asked = []
        self.cancelled = []
        self.running = 0
        self.most = 0
        self.open = {}

    async def __call__(self, key):
        self.asked.append(key)
        self.running += 1
        self.most = max(self.most, self.running)
        self.open[key] = asyncio.get_running_loop().create_future()
        try:
            return await self.open[key]
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise
        finally:
            self.running -= 1
            del self.open[key]

    def answer(self, key):
        self.open[key].set_result(f"value of {key}")


async def double(key):
    await asyncio.sleep(0)
    return key * 2


@BOTH
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
async def test_results_come_in_the_order_of_the_keys(gather, count):
    assert await gather(double, range(count), limit=7) == [key * 2 for key in range(count)]


@BOTH
async def test_results_come_in_the_order_of_the_keys_however_the_calls_end(gather):
    source = Source()
    task = asyncio.create_task(gather(source, "abc", limit=3))
    await turns()
    assert source.asked == ["a", "b", "c"]

    for key in "bca":
        source.answer(key)
        await turns()

    assert await task == ["value of a", "value of b", "value of c"]


@BOTH
async def test_equal_keys_are_each_looked_up(gather):
    assert await gather(double, [1, 1, 2], limit=2) == [2, 2, 4]


@BOTH
async def test_no_more_than_the_limit_run_at_once_and_all_of_it_is_used(gather):
    source = Source()
    task = asyncio.create_task(gather(source, range(10), limit=3))
    await turns()
    while source.open:
        assert source.running == min(3, 10 - len(source.asked) + len(source.open))
        source.answer(max(source.open))
        await turns()

    assert source.most == 3
    assert len(await task) == 10


@BOTH
async def test_a_single_key_costs_no_task(gather):
    async def which_task(_):
        return asyncio.current_task()

    assert await gather(which_task, ["only"], limit=5) == [asyncio.current_task()]


@BOTH
async def test_cancelling_it_cancels_every_call_and_waits_for_them(gather):
    may_end = asyncio.Event()
    ended = []

    async def slow_to_leave(key):
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()
            ended.append(key)

    task = asyncio.create_task(gather(slow_to_leave, range(5), limit=3))
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    may_end.set()
    await turns()

    assert task.cancelled()
    assert sorted(ended) == [0, 1, 2], "the others never began"


@BOTH
async def test_cancelling_it_again_while_calls_end_loses_none_of_them(gather):
    ended = []

    async def slow_to_leave(key):
        try:
            await asyncio.Event().wait()
        finally:
            # The second cancellation ends this wait.
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()
            ended.append(key)

    task = asyncio.create_task(gather(slow_to_leave, range(3), limit=3))
    await turns()
    for _ in range(2):
        assert not task.done()
        task.cancel()
        await turns()

    assert task.cancelled()
    assert sorted(ended) == [0, 1, 2]


@BOTH
@pytest.mark.parametrize("keys", ["a", "abc"])
async def test_a_cancellation_from_within_passes_and_cancels_the_others(gather, keys):
    source = Source()

    async def look_up(key):
        if key == "a":
            await asyncio.sleep(0)
            raise asyncio.CancelledError
        return await source(key)

    with pytest.raises(asyncio.CancelledError):
        await gather(look_up, keys, limit=3)
    assert sorted(source.cancelled) == sorted(keys[1:])


async def test_the_first_error_is_raised_itself_after_the_others_were_cancelled():
    source = Source()
    error = ValueError("first")
    task = asyncio.create_task(fan_out(source, "abcde", limit=3))
    await turns()
    source.open["b"].set_exception(error)

    with pytest.raises(ValueError, match="first") as raised:
        await task
    assert raised.value is error
    assert sorted(source.cancelled) == ["a", "c"]
    assert source.asked == ["a", "b", "c"], "nothing begins after the error"


async def test_a_call_that_does_not_even_begin_ends_the_others():
    source = Source()

    def begin(key):
        if key == "c":
            raise ValueError(key)
        return source(key)

    task = asyncio.create_task(fan_out(begin, "abcd", limit=2))
    await turns()
    source.answer("a")

    with pytest.raises(ValueError, match="c"):
        await task
    assert source.cancelled == ["b"]
    assert source.asked == ["a", "b"]


async def test_a_future_is_waited_for_without_a_task():
    loop = asyncio.get_running_loop()
    answers = {key: loop.create_future() for key in "ab"}
    before = asyncio.all_tasks()
    task = asyncio.create_task(fan_out(answers.get, "ab", limit=2))
    await turns()
    assert asyncio.all_tasks() == {*before, task}

    for key, answer in answers.items():
        answer.set_result(key)
    assert await task == ["a", "b"]


async def test_a_finished_value_takes_no_turn_of_the_loop_and_no_slot():
    loop = asyncio.get_running_loop()
    answers = {key: loop.create_future() for key in range(1000)}
    for key, answer in answers.items():
        if key != 998:
            answer.set_result(key)
    task = asyncio.create_task(fan_out(answers.__getitem__, range(1000), limit=1))
    loop.call_soon(answers[998].set_result, 998)
    await turns(1)
    assert not task.done()
    await turns(3)

    assert task.done()
    assert await task == list(range(1000))


async def test_an_error_of_a_call_being_cancelled_does_not_replace_the_first():
    async def fail(key):
        if key == "first":
            await asyncio.sleep(0)
            raise ValueError(key)
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError(key)

    with pytest.raises(ValueError, match="first"):
        await fan_out(fail, ["second", "first", "third"], limit=3)


async def test_cancelled_while_an_error_is_cleaned_up_it_is_cancelled():
    may_end = asyncio.Event()

    async def fail(key):
        if key == "failing":
            raise ValueError
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(may_end.wait())

    task = asyncio.create_task(fan_out(fail, ["slow to leave", "failing"], limit=2))
    await turns()
    assert not task.done()
    task.cancel()
    await turns()

    assert task.cancelled()
    may_end.set()
    await turns()


@BOTH
async def test_a_call_that_answers_its_cancellation_with_an_error_is_not_followed_by_another(
    gather,
):
    asked = []

    async def look_up(key):
        asked.append(key)
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError(key)

    task = asyncio.create_task(gather(look_up, "abcd", limit=2))
    await turns()
    task.cancel()
    await turns()

    assert task.cancelled()
    assert asked == ["a", "b"]


async def test_an_error_leaves_no_garbage_behind():
    class OurError(Exception):
        pass

    remembered = []

    async def fail(_):
        error = OurError()
        remembered.append(weakref.ref(error))
        await asyncio.sleep(0)
        try:
            raise error
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(OurError):
            await fan_out(fail, "abc", limit=3)
        await turns()
        assert [error() for error in remembered] == [None] * 3
    finally:
        gc.enable()


async def test_a_cancellation_leaves_no_garbage_behind():
    class Held:
        pass

    def begin():
        held = Held()

        async def wait(_):
            assert held
            await asyncio.Event().wait()

        return weakref.ref(held), asyncio.create_task(fan_out(wait, "abc", limit=3))

    gc.collect()
    gc.disable()
    try:
        held, task = begin()
        await turns()
        task.cancel()
        await turns()
        assert task.cancelled()
        del task
        assert held() is None
    finally:
        gc.enable()


async def test_settled_an_error_takes_the_place_of_the_result_and_harms_no_other():
    async def look_up(key):
        await asyncio.sleep(0)
        if key == "b":
            raise ValueError(key)
        return key

    first, second, third = await fan_out_settled(look_up, "abc", limit=2)

    assert (first, third) == ("a", "c")
    assert isinstance(second, ValueError)


@BOTH
@given(st.integers(0, 12), st.integers(1, 5), st.sets(st.integers(0, 11)), st.randoms())
def test_whatever_fails_and_ends_first_the_outcome_is_that_of_a_loop(
    gather, count, limit, failing, chance
):
    running = most = 0

    async def look_up(key):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            if key in failing:
                raise LookupError(key)
            return key
        finally:
            running -= 1

    async def journey():
        before = asyncio.all_tasks()
        try:
            return await gather(look_up, range(count), limit=limit)
        finally:
            assert running == 0
            assert asyncio.all_tasks() == before

    if gather is fan_out and failing & set(range(count)):
        with pytest.raises(LookupError) as raised:
            asyncio.run(journey())
        assert raised.value.args[0] in failing
    else:
        outcomes = asyncio.run(journey())
        assert [o.args[0] if isinstance(o, LookupError) else o for o in outcomes] == list(
            range(count)
        )
        assert {key for key, o in enumerate(outcomes) if isinstance(o, LookupError)} == (
            failing & set(range(count))
        )
    assert most <= limit

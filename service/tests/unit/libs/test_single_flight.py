import asyncio
import contextvars
import gc
import traceback
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.single_flight import FlightCancelled, SingleFlight

pytestmark = pytest.mark.anyio


async def turns(count=5):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def ask(flights, key, fn):
    return await flights.run(key, fn)


class Lookup:
    """A call that ends when the test says so."""

    def __init__(self):
        self.calls = 0
        self.cancelled = 0
        self.answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def __call__(self):
        self.calls += 1
        try:
            return await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_callers_with_the_same_key_share_one_call():
    shared = []
    flights = SingleFlight[str, object](on_shared=shared.append)
    lookup = Lookup()

    callers = [asyncio.create_task(ask(flights, "ann", lookup)) for _ in range(1000)]
    await turns()
    assert len(flights) == 1
    lookup.answer.set_result("found")

    assert await asyncio.gather(*callers) == ["found"] * 1000
    assert lookup.calls == 1
    assert len(shared) == 999
    assert len(flights) == 0


async def test_callers_with_different_keys_do_not_share():
    flights = SingleFlight[int, int]()

    async def one():
        return 1

    async def two():
        return 2

    assert await asyncio.gather(flights.run(1, one), flights.run(2, two)) == [1, 2]


async def test_a_forgotten_call_serves_those_who_wait_and_nobody_else():
    flights = SingleFlight[str, object]()
    old, new = Lookup(), Lookup()
    before = asyncio.create_task(ask(flights, "ann", old))
    leaver = asyncio.create_task(ask(flights, "ann", old))
    await turns()
    flights.forget("ann")
    after = asyncio.create_task(ask(flights, "ann", new))
    leaver.cancel()
    await turns()
    assert len(flights) == 1

    old.answer.set_result("old")
    await turns()
    assert len(flights) == 1, "the end of the old call does not end the new one"
    new.answer.set_result("new")

    assert [await before, await after] == ["old", "new"]
    assert (old.calls, new.calls) == (1, 1)


async def test_the_last_to_leave_a_forgotten_call_ends_it_and_not_the_new_one():
    flights = SingleFlight[str, object]()
    old, new = Lookup(), Lookup()
    before = asyncio.create_task(ask(flights, "ann", old))
    await turns()
    flights.forget("ann")
    after = asyncio.create_task(ask(flights, "ann", new))
    await turns()
    before.cancel()
    await turns()

    assert (old.cancelled, new.cancelled) == (1, 0)
    new.answer.set_result("new")
    assert await after == "new"


async def test_a_result_is_not_kept():
    flights = SingleFlight[str, int]()
    results = iter([1, 2])

    async def fetch():
        return next(results)

    assert await flights.run("ann", fetch) == 1
    assert await flights.run("ann", fetch) == 2


async def test_an_error_goes_to_everyone_who_waited_and_is_not_kept():
    flights = SingleFlight[str, object]()
    failing, working = Lookup(), Lookup()
    callers = [asyncio.create_task(ask(flights, "ann", failing)) for _ in range(3)]
    await turns()
    error = ValueError("no")
    failing.answer.set_exception(error)
    assert await asyncio.gather(*callers, return_exceptions=True) == [error] * 3

    working.answer.set_result("found")
    assert await flights.run("ann", working) == "found"


async def test_an_error_shared_by_many_keeps_its_traceback_short():
    flights = SingleFlight[str, object]()
    lookup = Lookup()
    depths = []

    async def caller():
        try:
            await flights.run("ann", lookup)
        except ValueError as exc:
            depths.append(len(traceback.extract_tb(exc.__traceback__)))

    callers = [asyncio.create_task(caller()) for _ in range(50)]
    await turns()
    lookup.answer.set_exception(ValueError())
    await asyncio.gather(*callers)

    assert len(depths) == 50
    assert len(set(depths)) == 1


async def test_an_error_leaves_no_garbage_behind():
    class OurError(Exception):
        pass

    flights = SingleFlight[str, object]()
    remembered = []

    async def fail():
        error = OurError()
        remembered.append(weakref.ref(error))
        await asyncio.sleep(0)
        try:
            raise error
        finally:
            del error

    async def caller():
        with pytest.raises(OurError):
            await flights.run("ann", fail)

    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(caller(), caller(), caller())
        await turns()
        assert [error() for error in remembered] == [None]
    finally:
        gc.enable()


async def test_an_abandoned_call_leaves_no_garbage_behind():
    class Held:
        pass

    flights = SingleFlight[str, object]()

    def begin():
        held = Held()

        async def wait():
            assert held
            await asyncio.Event().wait()

        return weakref.ref(held), flights.run("ann", wait)

    gc.collect()
    gc.disable()
    try:
        held, call = begin()
        await turns()
        call.cancel()
        await turns()
        assert held() is None
    finally:
        gc.enable()


async def test_a_caller_that_goes_away_harms_nobody():
    flights = SingleFlight[str, object]()
    lookup = Lookup()
    leader, follower = (asyncio.create_task(ask(flights, "ann", lookup)) for _ in range(2))
    await turns()

    leader.cancel()
    await turns()
    assert leader.cancelled()
    lookup.answer.set_result("found")

    assert await follower == "found"
    assert (lookup.calls, lookup.cancelled) == (1, 0)


@pytest.mark.parametrize("lands_first", [True, False])
async def test_a_caller_that_goes_away_as_the_result_arrives_harms_nobody(lands_first):
    flights = SingleFlight[str, object]()
    lookup = Lookup()
    leader, follower = (asyncio.create_task(ask(flights, "ann", lookup)) for _ in range(2))
    await turns()

    happens = [lambda: lookup.answer.set_result("found"), leader.cancel]
    for happen in happens if lands_first else reversed(happens):
        happen()
    await turns()

    assert leader.cancelled()
    assert await follower == "found"


async def test_a_waiter_cancelled_in_the_turn_of_the_landing_harms_nobody():
    flights = SingleFlight[str, object]()
    callers = []

    async def cancels_its_first_caller():
        await asyncio.sleep(0)
        callers[0].cancel()
        return "found"

    callers += [asyncio.create_task(ask(flights, "a", cancels_its_first_caller)) for _ in range(2)]
    await turns()

    assert callers[0].cancelled()
    assert await callers[1] == "found"


async def test_the_call_is_cancelled_when_the_last_caller_goes_away():
    flights = SingleFlight[str, object]()
    lookup = Lookup()
    before = asyncio.all_tasks()
    callers = [asyncio.create_task(ask(flights, "ann", lookup)) for _ in range(3)]
    await turns()

    for caller in callers:
        assert lookup.cancelled == 0
        caller.cancel()
        await turns()

    assert lookup.cancelled == 1
    assert len(flights) == 0
    assert asyncio.all_tasks() == before


async def test_a_caller_that_comes_while_an_abandoned_call_ends_starts_a_new_one():
    flights = SingleFlight[str, object]()
    may_end = asyncio.Event()

    async def reluctant():
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    abandoned = asyncio.create_task(ask(flights, "ann", reluctant))
    await turns()
    abandoned.cancel()
    await turns()
    assert abandoned.cancelled()

    lookup = Lookup()
    newcomer = asyncio.create_task(ask(flights, "ann", lookup))
    await turns()
    assert lookup.calls == 1
    may_end.set()
    await turns()
    assert len(flights) == 1, "the end of the abandoned call must not end the new one"
    lookup.answer.set_result("found")
    assert await newcomer == "found"


async def test_an_abandoned_call_that_will_not_be_cancelled_ends_in_peace():
    flights = SingleFlight[str, str]()
    gates, ended = [], []

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            gate = asyncio.Event()
            # Held by nobody but the call itself, so that only who holds the call keeps it.
            gates.append(weakref.ref(gate))
            await gate.wait()
            ended.append(True)
        return "nobody wants it"

    caller = asyncio.create_task(ask(flights, "ann", stubborn))
    await turns()
    caller.cancel()
    await turns()
    gc.collect()
    gates[0]().set()
    await turns()
    assert ended == [True]


async def test_a_caller_cancelled_as_the_error_arrives_leaves_no_warning(caplog):
    flights = SingleFlight[str, object]()

    async def fail():
        # Runs after the landing and before the caller is woken by it.
        asyncio.get_running_loop().call_soon(callers.pop().cancel)
        raise ValueError

    callers = [asyncio.create_task(ask(flights, "ann", fail))]
    await turns()
    gc.collect()

    assert callers == []

    assert caplog.text == ""


async def test_a_call_cancelled_from_within_does_not_pass_for_the_callers_own_cancellation():
    flights = SingleFlight[str, None]()

    async def cancels_itself():
        raise asyncio.CancelledError

    callers = [asyncio.create_task(ask(flights, "ann", cancels_itself)) for _ in range(2)]
    outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [FlightCancelled, FlightCancelled]
    assert len(flights) == 0


@pytest.mark.parametrize("exit_type", [KeyboardInterrupt, SystemExit])
async def test_a_wish_to_exit_is_passed_on(exit_type):
    async def journey():
        flights = SingleFlight[str, None]()

        async def interrupted():
            await asyncio.sleep(0)
            raise exit_type

        await flights.run("ann", interrupted)

    def in_a_loop_of_its_own():
        with pytest.raises(exit_type):
            asyncio.run(journey())

    await asyncio.to_thread(in_a_loop_of_its_own)


async def test_the_call_sees_the_context_of_its_first_caller():
    flights = SingleFlight[str, str]()
    trace = contextvars.ContextVar("trace", default="none")

    async def read():
        await asyncio.sleep(0)
        return trace.get()

    async def caller(name):
        trace.set(name)
        return await flights.run("ann", read)

    tasks = [asyncio.create_task(caller(name)) for name in ("first", "second")]
    assert await asyncio.gather(*tasks) == ["first", "first"]


async def test_the_callback_gets_the_context_of_the_call_that_is_shared():
    trace = contextvars.ContextVar("trace")
    leading = []
    flights = SingleFlight[str, object](on_shared=lambda context: leading.append(context[trace]))
    lookup = Lookup()

    async def caller(name):
        trace.set(name)
        return await flights.run("ann", lookup)

    tasks = [asyncio.create_task(caller(name)) for name in ("first", "second", "third")]
    await turns()
    lookup.answer.set_result("found")
    await asyncio.gather(*tasks)

    assert leading == ["first", "first"]


async def test_a_callback_that_raises_harms_only_the_caller_that_joined():
    def refuse(_context):
        raise RuntimeError

    flights = SingleFlight[str, object](on_shared=refuse)
    lookup = Lookup()
    leader = asyncio.create_task(ask(flights, "ann", lookup))
    await turns()
    with pytest.raises(RuntimeError):
        await flights.run("ann", lookup)
    lookup.answer.set_result("found")
    assert await leader == "found"


class Call:
    def __init__(self, key):
        self.key = key
        self.cancelled = False
        self.answer = asyncio.get_running_loop().create_future()

    async def outcome(self):
        try:
            return self, await self.answer
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class World:
    """Callers of three keys who come and go, and calls that end, at random moments."""

    def __init__(self):
        self.flights = SingleFlight[int, tuple[Call, str]]()
        self.calls: list[Call] = []
        self.callers: list[tuple[int, asyncio.Task[tuple[Call, str]]]] = []
        self.left: set[asyncio.Task[tuple[Call, str]]] = set()

    async def arrive(self, key):
        async def fetch():
            call = Call(key)
            self.calls.append(call)
            return await call.outcome()

        self.callers.append((key, asyncio.create_task(ask(self.flights, key, fetch))))

    async def leave(self, number):
        for _, caller in self.callers[number : number + 1]:
            self.left.add(caller)
            caller.cancel()

    async def land(self, key):
        for call in self.under_way(key):
            call.answer.set_result("landed")

    async def fail(self, key):
        for call in self.under_way(key):
            call.answer.set_exception(ValueError())

    async def turn(self, _):
        await asyncio.sleep(0)

    def under_way(self, key):
        return [call for call in self.calls if call.key == key and not call.answer.done()]

    def wanted(self, key):
        return any(k == key and not caller.done() for k, caller in self.callers)

    def check_outcomes(self):
        for key, caller in self.callers:
            if caller.cancelled():
                assert caller in self.left, "nobody is cancelled who did not leave"
            elif caller.exception() is not None:
                assert isinstance(caller.exception(), ValueError)
            else:
                call, outcome = caller.result()
                assert (call.key, call.cancelled, outcome) == (key, False, "landed")


ACTIONS = {
    "arrive": st.integers(0, 2),
    "leave": st.integers(0, 9),
    "land": st.integers(0, 2),
    "fail": st.integers(0, 2),
    "turn": st.just(0),
}
STEPS = st.lists(
    st.one_of([st.tuples(st.just(name), argument) for name, argument in ACTIONS.items()]),
    max_size=40,
)


@given(STEPS)
def test_no_order_of_arrivals_departures_and_landings_confuses_the_callers(steps):
    async def journey():
        world = World()
        # What stands between two turns happens in the same turn of the loop.
        for action, argument in steps:
            await getattr(world, action)(argument)

        await turns(10)
        for key in range(3):
            assert len(world.under_way(key)) == world.wanted(key), "under way if and only if wanted"
        assert len(world.flights) == sum(map(world.wanted, range(3)))

        for key in range(3):
            await world.land(key)
        await turns(10)
        world.check_outcomes()
        assert len(world.flights) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(journey())

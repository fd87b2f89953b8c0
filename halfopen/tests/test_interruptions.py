"""Whatever comes between two lines: a signal handler, a finalizer, a fork, an exception.

Nothing hangs, and what is found is the circuit before a change or after it, never half of one.
"""

import contextlib
import gc
import os
import posix
import signal
import sys
import threading
import time
import traceback
from itertools import count, pairwise
from pathlib import Path

import pytest

import halfopen
from halfopen import (
    Backoff,
    BreakerRegistry,
    CallFailed,
    CallSucceeded,
    CallWindow,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    FailureCount,
    FailureRate,
    ProbeExpired,
    SlowCallRate,
    State,
    StateChanged,
    TimeWindow,
)

HERE = str(Path(halfopen.__file__).parent) + "/"
RULES = {
    "row": ConsecutiveFailures(2),
    "count": FailureCount(2, within=30),
    "calls": FailureRate(0.5, over=CallWindow(4), minimum_calls=2),
    "time": FailureRate(0.5, over=TimeWindow(30), minimum_calls=2),
    "slow": SlowCallRate(0.5, slower_than=1, over=CallWindow(4), minimum_calls=2),
}


class Stop(BaseException):
    """What the handler raises, like a soft time limit."""


class Story:
    """A breaker, a listener that follows it, and what must hold whenever nothing runs."""

    def __init__(self, rule="row"):
        self.now = 0.0
        self.breaker = CircuitBreaker(
            "x",
            trip=RULES[rule],
            cooldown=Backoff(10, jitter=0.5),
            success_threshold=2,
            clock=lambda: self.now,
        )
        self.changes = []
        self.breaker.on(StateChanged, self.changes.append)

    def check(self):
        self.breaker.snapshot()  # tells what waits to be told
        for before, after in pairwise(self.changes):
            assert before.new is after.old
        assert (self.changes[-1].new if self.changes else State.CLOSED) is self.breaker.state
        self.check_that_calls_agree_with_the_state()

    def check_that_calls_agree_with_the_state(self):
        state, retry_after = self.breaker.state, self.breaker.snapshot().retry_after
        let_in = retry_after == 0 and state is not State.ISOLATED
        with contextlib.nullcontext() if let_in else pytest.raises(CircuitOpen):
            self.breaker.acquire().ignore()
        state = self.breaker.state
        if state in {State.OPEN, State.ISOLATED}:
            with pytest.raises(CircuitOpen) as refused:
                self.breaker(int)()
            assert refused.value.state is state

    def recover(self):
        """From anywhere it comes back, and lets in one probe on the way."""
        while self.breaker.state is State.ISOLATED:
            self.breaker.reset()
        self.breaker.trip()
        self.now += 1000
        first = self.breaker.acquire()
        with pytest.raises(CircuitOpen):
            self.breaker.acquire()
        assert first.success()
        assert self.breaker.acquire().success()
        assert self.breaker.state is State.CLOSED
        self.check()


def nonsense():
    # int("nonsense") runs signal handlers, and raises its own error in place of theirs.
    raise ValueError


def fail(story):
    with contextlib.suppress(ValueError, CircuitOpen):
        story.breaker.call(nonsense)


def outage(story):
    """All that a breaker does, from the first failure to its recovery."""
    breaker = story.breaker

    def let_in():
        try:
            return breaker.acquire()
        except CircuitOpen:
            return CircuitBreaker("another").acquire()

    let_in().success()
    fail(story)
    slow = let_in()
    story.now += 2
    slow.failure(ValueError("slow"))
    fail(story)
    fail(story)
    let_in().success()
    story.now += 10
    hung = let_in()
    story.now += 30
    let_in().ignore()
    hung.success()
    with contextlib.suppress(CircuitOpen):
        breaker.call(int)
    with breaker.isolate():
        let_in()
        breaker.trip()
    breaker.trip(3)
    breaker.reset()
    breaker.once(CallFailed, lambda _: None)()


def in_a_finalizer(frame):
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def at_line(number, action, rule):
    """Run `action` at one line of an outage, counted over the package's code. False: no such."""
    story = Story(rule)
    left = count(number, -1)
    done = []

    def trace(frame, event, _arg):
        if HERE not in frame.f_code.co_filename:
            return None
        # What is raised in a finalizer reaches nobody; in `hear` the listener has begun to hear.
        if action is stop and (frame.f_code.co_name == "hear" or in_a_finalizer(frame)):
            return None
        if event == "line" and not done and next(left) == 0:
            done.append(True)
            sys.settrace(None)
            action(story)
        return trace if not done else None

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        outage(story)
    except Stop:
        pass
    finally:
        sys.settrace(before)
    return story, bool(done)


def stop(_story):
    raise Stop


def use(story):
    breaker = story.breaker
    breaker.snapshot()
    with contextlib.suppress(CircuitOpen):
        breaker.call(int)
    fail(story)
    with breaker.isolate():
        pass
    breaker.trip()


ACTIONS = {
    "an exception": stop,
    "a use": use,
    "a reset": lambda story: story.breaker.reset(),
    "a failure": fail,
    "a listener": lambda story: story.breaker.once(CallSucceeded, lambda _: None),
}
EVERY = int(os.environ.get("HALFOPEN_EVERY_LINE", "0")) or None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("action", ACTIONS)
def test_at_any_line_an_interruption_finds_one_of_the_two_states(action, rule):
    # Every line takes a minute; in steps of a prime, all are visited over the parameters.
    step = 1 if EVERY else 83
    for number in count(len(action) % step, step):
        story, reached = at_line(number, ACTIONS[action], rule)
        if not reached:
            break
        story.check()
        story.recover()
    assert number > 300


@pytest.mark.parametrize("action", ["isolate", "trip"])
def test_a_signal_handlers_change_is_complete_when_it_returns(action):
    for number in count(3, 61):
        seen = []

        def act(story, seen=seen):
            handle = getattr(story.breaker, action)()
            seen.append(story.breaker.state)
            if handle is not None:
                with pytest.raises(CircuitOpen):
                    story.breaker.call(int)
                handle.release()

        _, reached = at_line(number, act, "row")
        if not reached:
            break
        assert seen in ([State.ISOLATED], [State.OPEN])


@contextlib.contextmanager
def handler_every(seconds, handler):
    """Run it again and again, so long after it has returned: it never interrupts itself."""

    def handle(*_):
        handler()
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


needs_signals = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs a system with interval timers, such as Linux"
)


@needs_signals
@pytest.mark.parametrize("rule", ["row", "calls"])
def test_a_signal_handler_may_use_the_breaker_at_any_time(rule):
    story = Story(rule)
    handled = 0

    def handler():
        nonlocal handled
        handled += 1
        for action in (use, ACTIONS["a reset"], ACTIONS["a failure"])[handled % 3 :]:
            action(story)

    end = time.monotonic() + 0.5
    with handler_every(0.0003, handler):
        # On a busy machine half a second brings few interruptions.
        while handled <= 3 or time.monotonic() < end:
            outage(story)

    story.check()
    story.recover()


@needs_signals
def test_a_handler_that_raises_leaves_one_of_the_two_states():
    story = Story()
    interrupted = 0
    on_the_way = []

    def once_more():
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    def handler(_signal, frame):
        if HERE in frame.f_code.co_filename and not in_a_finalizer(frame):
            on_the_way.append(frame.f_lineno)
            raise Stop
        once_more()  # nothing but the package is interrupted, whatever it calls

    before = signal.signal(signal.SIGALRM, handler)
    end = time.monotonic() + 1
    try:
        # On a busy machine a second brings few interruptions.
        while interrupted <= 3 or time.monotonic() < end:
            try:
                once_more()
                while interrupted <= 3 or time.monotonic() < end:
                    outage(story)
                    assert not on_the_way  # or nothing would interrupt it again
            except Stop:
                interrupted += 1
                on_the_way.clear()
                with story.breaker.isolate():
                    story.breaker.snapshot()
                story.check()
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert interrupted > 3
    story.recover()


def test_finalizers_may_use_the_breaker_in_the_middle_of_anything():
    story = Story()
    collected = count()

    class Finalized:
        def __init__(self):
            self.itself = self
            self.permit = None

        def __del__(self):
            next(collected)
            story.breaker.snapshot()
            if self.permit is not None:
                self.permit.failure()
            with story.breaker.isolate():
                pass

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(60):
            with contextlib.suppress(CircuitOpen):
                Finalized().permit = story.breaker.acquire()
            Finalized()
            outage(story)
    finally:
        gc.set_threshold(*before)
        gc.collect()

    assert next(collected) >= 100
    story.check()
    story.recover()


def test_a_finalizer_that_settles_a_permit_finds_no_lock(make):
    breaker = make(trip=ConsecutiveFailures(1))

    class Connection:
        def __init__(self):
            self.permit = breaker.acquire()

        def __del__(self):
            self.permit.failure()

    breaker.on(CallFailed, lambda _: None)
    connection = Connection()
    breaker.on(CallFailed, lambda _, keep=[connection]: keep.clear())
    del connection
    gc.collect()

    breaker.acquire().failure()

    assert breaker.state is State.OPEN


needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs a system with fork, such as Linux"
)


def in_a_child(action):
    """Whether it returns there, within a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [])  # newer versions warn of threads beside a fork
        child = os.fork()
    if child == 0:
        # A debugger or coverage may hold locks that do not survive a fork. The latter saves what it
        # has in `os._exit`, so that is not what ends the child.
        sys.settrace(None)
        signal.alarm(60)
        try:
            action()
            posix._exit(0)
        except BaseException:
            traceback.print_exc()
            posix._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0


@contextlib.contextmanager
def busy_threads(action, threads=3):
    over = threading.Event()

    def run():
        while not over.is_set():
            action()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join()


@needs_fork
def test_forks_beside_busy_threads_find_nothing_held():
    story = Story()
    registry = BreakerRegistry(lambda key: CircuitBreaker(str(key)), max_size=5)
    keys = count()

    def busy():
        fail(story)
        story.breaker.snapshot()
        registry[next(keys) % 11].snapshot()

    def child():
        outage(story)
        story.recover()
        for key in range(20):
            registry[key].call(int)

    with busy_threads(busy):
        assert all(in_a_child(child) for _ in range(10))


@needs_fork
def test_a_child_forked_while_a_listener_ran_hears_its_own_events(make):
    breaker = make(trip=ConsecutiveFailures(10**6))
    heard = []
    entered, go_on = threading.Event(), threading.Event()

    def listener(event):
        heard.append(event)
        if len(heard) == 1:
            entered.set()
            go_on.wait(60)

    breaker.on(CallFailed, listener)
    thread = threading.Thread(target=lambda: breaker.acquire().failure())
    thread.start()
    entered.wait(60)

    def child():
        breaker.acquire().failure()
        breaker.acquire().failure()
        assert len(heard) == 3

    try:
        assert in_a_child(child)
    finally:
        go_on.set()
        thread.join()


def test_a_registry_may_be_used_by_a_handler_at_any_line():
    for number in count(0, 1):
        registry = BreakerRegistry(CircuitBreaker, max_size=2)
        left = count(number, -1)
        done = []

        def trace(frame, event, _arg, registry=registry, left=left, done=done):
            if HERE + "registry" not in frame.f_code.co_filename:
                return None
            if event == "line" and not done and next(left) == 0:
                done.append(True)
                sys.settrace(None)
                registry.pop("a")
                for key in "bdef":
                    registry[key].snapshot()
            return trace if not done else None

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            for key in "abcab":
                registry[key].call(int)
            leave = registry.on(ProbeExpired, print)
            registry.pop("b")
            leave()
        finally:
            sys.settrace(before)
        assert len(registry) <= 2
        if not done:
            break
    assert number > 50

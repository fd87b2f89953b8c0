"""What a guarded call costs with halfopen and with the breakers it is compared to.

All run in one process, in interleaved rounds; the figures are medians over the rounds, in
nanoseconds beyond the same call unguarded. Every contender is checked before it is measured: that
it lets calls through, really opens, and then refuses without running the function.

    python benchmarks/breaker/compare.py [--rounds 101] [--calls 1000] [--json FILE]

It needs `halfopen` and the packages of requirements.txt beside this file.
"""

import argparse
import asyncio
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiobreaker
import circuitbreaker
import interlock
import pybreaker
from hyx.circuitbreaker import consecutive_breaker
from hyx.circuitbreaker.exceptions import BreakerFailing
from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

import halfopen

Function = Callable[[], Any]
Decorate = Callable[[Function], Function]
NEVER = 10**9
LONG = 10**6


class Failure(Exception):
    """What the guarded functions raise."""


class FourAttributes(Exception):
    """The yardstick of a refusal: an exception with as many attributes as CircuitOpen."""

    def __init__(self, name: str, state: str, retry_after: float, last_failure: object) -> None:
        self.name = name
        self.state = state
        self.retry_after = retry_after
        self.last_failure = last_failure


def answer() -> int:
    return 42


def fail() -> int:
    raise Failure


def raise_four() -> int:
    raise FourAttributes("name", "open", 1.0, None)


async def aanswer() -> int:
    return 42


async def afail() -> int:
    raise Failure


async def araise_four() -> int:
    raise FourAttributes("name", "open", 1.0, None)


def extra_frame(fn: Function) -> Function:
    def guarded() -> Any:
        return fn()

    return guarded


def extra_coroutine_frame(fn: Function) -> Function:
    async def guarded() -> Any:
        return await fn()

    return guarded


def interlock_breaker(failures: int) -> Decorate:
    # It knows rates only: every call of a window of one, or of more calls than are ever made.
    window = 1 if failures == 1 else 100
    return interlock.CircuitBreaker(
        name="bench",
        config=interlock.Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=window,
            window_size=window,
            wait_duration_in_open=LONG,
        ),
    )


# Each makes a decorator that opens after so many failures, and stays open for long. The error is
# what it refuses with.
Contender = tuple[str, Callable[[int], Decorate], type[BaseException]]

SYNC: list[Contender] = [
    (
        "halfopen",
        lambda n: halfopen.CircuitBreaker(
            "bench", trip=halfopen.FailureCount(n, within=60), cooldown=LONG
        ),
        halfopen.CircuitOpen,
    ),
    (
        "circuitbreaker",
        lambda n: circuitbreaker.CircuitBreaker(failure_threshold=n, recovery_timeout=LONG),
        circuitbreaker.CircuitBreakerError,
    ),
    (
        "pybreaker",
        lambda n: pybreaker.CircuitBreaker(
            fail_max=n, reset_timeout=LONG, throw_new_error_on_trip=False
        ),
        pybreaker.CircuitBreakerError,
    ),
    (
        "aiobreaker",
        lambda n: aiobreaker.CircuitBreaker(fail_max=n, timeout_duration=timedelta(seconds=LONG)),
        aiobreaker.CircuitBreakerError,
    ),
    (
        "purgatory",
        lambda n: SyncCircuitBreakerFactory(default_threshold=n, default_ttl=LONG)("bench"),
        OpenedState,
    ),
    ("interlock-cb", interlock_breaker, interlock.CircuitOpenError),
]
ASYNC: list[Contender] = [
    *(contender for contender in SYNC if contender[0] not in {"pybreaker", "purgatory"}),
    (
        "hyx",
        lambda n: consecutive_breaker(failure_threshold=n, recovery_time_secs=LONG),
        BreakerFailing,
    ),
    (
        "purgatory",
        lambda n: AsyncCircuitBreakerFactory(default_threshold=n, default_ttl=LONG)("bench"),
        OpenedState,
    ),
]


def outcome(guarded: Function) -> object:
    """What a call comes to: its result, or the type of what it raises."""
    try:
        result = guarded()
        return asyncio.run(result) if isinstance(result, Awaitable) else result
    except Exception as exc:  # noqa: BLE001 - whatever the breakers raise
        return type(exc)


def opened(
    name: str,
    make: Callable[[int], Decorate],
    error: type[BaseException],
    bad: Function,
    good: Function,
) -> Function:
    """A guarded `good` whose breaker is open, proven to be."""
    breaker = make(1)
    guarded = breaker(good)
    if outcome(guarded) != 42:
        raise RuntimeError(f"{name} does not let a healthy call through")
    first = outcome(breaker(bad))
    # aiobreaker hides the error of the call that trips behind its own.
    if first is not Failure and not issubclass(first, error):
        raise RuntimeError(f"{name} turned a failure into {first}")
    if outcome(guarded) is not error:
        raise RuntimeError(f"{name} did not open")
    return guarded


def closed(name: str, make: Callable[[int], Decorate], fn: Function, expected: object) -> Function:
    """A guarded `fn` whose breaker will not open, proven to call it."""
    guarded = make(NEVER)(fn)
    for _ in range(20):
        if outcome(guarded) != expected:
            raise RuntimeError(f"{name} does not call a guarded function")
    return guarded


def time_sync(fn: Function, calls: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(calls):
        fn()
    return (time.perf_counter_ns() - begin) / calls


def time_sync_errors(fn: Function, calls: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(calls):
        try:  # noqa: SIM105 - suppress() would be measured, too
            fn()
        except Exception:  # noqa: BLE001
            pass
    return (time.perf_counter_ns() - begin) / calls


def time_async(fn: Function, calls: int) -> float:
    async def run() -> float:
        begin = time.perf_counter_ns()
        for _ in range(calls):
            await fn()
        return (time.perf_counter_ns() - begin) / calls

    return asyncio.run(run())


def time_async_errors(fn: Function, calls: int) -> float:
    async def run() -> float:
        begin = time.perf_counter_ns()
        for _ in range(calls):
            try:  # noqa: SIM105
                await fn()
            except Exception:  # noqa: BLE001
                pass
        return (time.perf_counter_ns() - begin) / calls

    return asyncio.run(run())


Timer = Callable[[Function, int], float]
Case = tuple[str, Timer, dict[str, Function]]


def cases() -> Iterator[Case]:
    """Each with the unguarded call first, then the floor or yardstick, then the contenders."""
    yield (
        "async success",
        time_async,
        {"bare": aanswer, "floor": extra_coroutine_frame(aanswer)}
        | {name: closed(name, make, aanswer, 42) for name, make, _ in ASYNC},
    )
    yield (
        "async failure",
        time_async_errors,
        {"bare": afail, "floor": extra_coroutine_frame(afail)}
        | {name: closed(name, make, afail, Failure) for name, make, _ in ASYNC},
    )
    yield (
        "async refusal",
        time_async_errors,
        {"bare": aanswer, "four attributes": araise_four}
        | {name: opened(name, make, error, afail, aanswer) for name, make, error in ASYNC},
    )
    yield (
        "sync success",
        time_sync,
        {"bare": answer, "floor": extra_frame(answer)}
        | {name: closed(name, make, answer, 42) for name, make, _ in SYNC},
    )
    yield (
        "sync failure",
        time_sync_errors,
        {"bare": fail, "floor": extra_frame(fail)}
        | {name: closed(name, make, fail, Failure) for name, make, _ in SYNC},
    )
    yield (
        "sync refusal",
        time_sync_errors,
        {"bare": answer, "four attributes": raise_four}
        | {name: opened(name, make, error, fail, answer) for name, make, error in SYNC},
    )


def measure(case: Case, rounds: int, calls: int) -> dict[str, float]:
    """Nanoseconds over the bare call, for all but that."""
    _, timer, functions = case
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        timer(function, calls // 10)
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(timer(function, calls))
    over: dict[str, float] = {}
    for name in functions:
        if name != "bare":
            # Compared within a round, so that a slow round is slow for both.
            pairs = zip(times[name], times["bare"], strict=True)
            over[name] = statistics.median(mine - bare for mine, bare in pairs)
    return over


def goals(results: dict[str, dict[str, float]]) -> Iterator[tuple[str, float, bool]]:
    success = results["async success"]
    others = [ns for name, ns in success.items() if name not in {"floor", "halfopen"}]
    of_floor = success["halfopen"] / success["floor"]
    yield "async success, times the floor (at most 2.5)", of_floor, of_floor <= 2.5
    ahead = min(others) / success["halfopen"]
    yield "async success, ahead of the best other (at least 3)", ahead, ahead >= 3
    for kind in ("async", "sync"):
        refusal = results[f"{kind} refusal"]
        share = refusal["halfopen"] / refusal["four attributes"]
        yield f"{kind} refusal, times raising four attributes (at most 1)", share, share <= 1


def table(results: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for figures in results.values() for name in figures))
    lines = [f"{'ns over the bare call':<18}" + "".join(f"{case:>16}" for case in results)]
    for name in names:
        cells = (figures.get(name) for figures in results.values())
        lines.append(
            f"{name:<18}"
            + "".join(f"{'-' if cell is None else format(cell, '.0f'):>16}" for cell in cells)
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    gc.disable()
    results = {}
    for case in cases():
        results[case[0]] = measure(case, options.rounds, options.calls)
        gc.collect()
    reached = list(goals(results))

    print(table(results))
    print()
    for text, figure, met in reached:
        print(f"{'met   ' if met else 'missed'}  {figure:5.2f}  {text}")
    if options.json is not None:
        names = {name for name, _, _ in SYNC + ASYNC} - {"halfopen"}
        report = {
            "python": sys.version,
            "machine": platform.machine(),
            "versions": {name: importlib.metadata.version(name) for name in sorted(names)},
            "rounds": options.rounds,
            "calls": options.calls,
            "ns_over_the_bare_call": results,
            "goals": [
                {"goal": text, "figure": figure, "met": met} for text, figure, met in reached
            ],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

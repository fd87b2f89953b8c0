"""Tests the outbox for so many seconds, with a new seed each time; exits with 1 on a loss."""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from service.tests.postgres_server import find_programs, postgres_server

from torture.crashes import crashes
from torture.outage import outage
from torture.pause import pause
from torture.power import FAILURES, failing_disk, power_cuts

# Seconds that a full round takes. With less time, a round has proportionally fewer cuts, calls,
# crashes and events.
WHOLE_ROUND = 600.0

# From a folder, a seed and the fraction of a full round to a summary of the result.
Trial = Callable[[Path, int, float], Coroutine[Any, Any, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=WHOLE_ROUND)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    share = min(1.0, arguments.seconds / WHOLE_ROUND)
    ends = time.monotonic() + arguments.seconds
    seed = arguments.seed
    while True:
        for name, trial in TRIALS.items():
            began = time.monotonic()
            print(f"{name}, seed {seed}: ", end="", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                told = asyncio.run(trial(Path(folder), seed, share))
            print(f"{told} ({time.monotonic() - began:.0f} s)", flush=True)
        seed += 1
        if time.monotonic() + share * WHOLE_ROUND > ends:
            return


async def _power_cuts(folder: Path, seed: int, share: float) -> str:
    return f"{await power_cuts(round(1_000 * share), seed, folder)} power cuts, nothing lost"


async def _failures(_folder: Path, seed: int, share: float) -> str:
    runs, most = 0, None if share == 1 else round(120 * share)
    for errno, operation in FAILURES:
        for length in (1, 4):
            runs += await failing_disk(errno, operation, seed, length=length, most=most)
    return f"{runs} disks that failed, nothing lost, no false promise"


async def _crashes(url: str, share: float) -> str:
    told = await crashes(url, times=max(1, round(20 * share)))
    return f"{told.crashes} crashes, {told.acknowledged} events, one effect each"


async def _pauses(url: str, share: float) -> str:
    times = max(1, round(5 * share))
    events = await pause(url, times=times)
    return f"{times} workers paused beyond their lease, {events} events, one effect each"


async def _outage(url: str, share: float) -> str:
    seconds = 60 * share
    told = await outage(url, seconds=seconds, users=100, events=round(10_000 * share))
    return (
        f"{told.calls} calls in {seconds:.0f} s without the upstream, then {told.events} events in "
        f"their order within {told.delivered_in:.0f} s"
    )


def _in_sqlite(trial: Callable[[str, float], Awaitable[str]]) -> Trial:
    async def run(folder: Path, _seed: int, share: float) -> str:
        return await trial(f"sqlite:///{folder}/outbox.db", share)

    return run


def _in_postgres(trial: Callable[[str, float], Awaitable[str]]) -> Trial:
    async def run(_folder: Path, _seed: int, share: float) -> str:
        programs = find_programs()
        if programs is None:
            return "left out, it needs initdb: apt-get install postgresql"
        with postgres_server(programs) as server:
            return await trial(server.create_database(), share)

    return run


TRIALS: dict[str, Trial] = {
    "power": _power_cuts,
    "disk": _failures,
    "kill -9": _in_sqlite(_crashes),
    "kill -9, PostgreSQL": _in_postgres(_crashes),
    "pause": _in_sqlite(_pauses),
    "pause, PostgreSQL": _in_postgres(_pauses),
    "outage": _in_sqlite(_outage),
    "outage, PostgreSQL": _in_postgres(_outage),
}

if __name__ == "__main__":
    main()

"""Tortures the outbox for so many seconds, with another seed each time; ends with 1 if it loses."""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from torture.crashes import crashes
from torture.outage import outage
from torture.power import FAILURES, failing_disk, power_cuts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    ends = time.monotonic() + arguments.seconds
    seed, first = arguments.seed, True
    while first or time.monotonic() < ends:
        for name, trial in TRIALS.items():
            if first or time.monotonic() < ends:
                began = time.monotonic()
                print(f"{name}, seed {seed}: ", end="", flush=True)
                with tempfile.TemporaryDirectory() as folder:
                    told = asyncio.run(trial(Path(folder), seed))
                print(f"{told} ({time.monotonic() - began:.0f} s)", flush=True)
        seed, first = seed + 1, False


async def _power_cuts(folder: Path, seed: int) -> str:
    return f"{await power_cuts(1_000, seed, folder)} power cuts, nothing lost"


async def _failures(_folder: Path, seed: int) -> str:
    runs = 0
    for errno, operation in FAILURES:
        for length in (1, 4):
            runs += await failing_disk(errno, operation, seed, length=length)
    return f"{runs} disks that failed, nothing lost, no false promise"


async def _crashes(folder: Path, _seed: int) -> str:
    told = await crashes(f"sqlite:///{folder}/outbox.db", times=20)
    return f"{told.crashes} crashes, {told.acknowledged} events, one effect each"


async def _outage(folder: Path, _seed: int) -> str:
    url = f"sqlite:///{folder}/outbox.db"
    told = await outage(url, seconds=60, users=100, events=10_000)
    return (
        f"{told.calls} calls in 60 s without the upstream, then {told.events} events in their "
        f"order within {told.delivered_in:.0f} s"
    )


TRIALS = {
    "power": _power_cuts,
    "disk": _failures,
    "kill -9": _crashes,
    "outage": _outage,
}

if __name__ == "__main__":
    main()

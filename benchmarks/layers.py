"""`python -m benchmarks.layers`: the CPU time that each layer of the service takes."""

import argparse
import os
import signal
import sys
import time
from contextlib import redirect_stdout
from math import inf
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks import held, shares, threads
from benchmarks.__main__ import stop
from benchmarks.client_parts import FOREVER, client_parts
from benchmarks.contenders import OPS_TOKEN, OURS
from benchmarks.in_process import PASS_THROUGH, TEN_EVENTS, whole_requests
from benchmarks.parts import parts
from benchmarks.processes import allow_many_files
from event_service.libs.garbage import make_collection_rare
from event_service.settings import Settings
from event_service.telemetry.logs import configure_logging

WIDTH = 50


class Size(NamedTuple):
    """How much is measured: at most so many rows of each server, and requests held in flight."""

    rows: int
    held: int


WHOLE = Size(rows=sys.maxsize, held=5000)
SMOKE = Size(rows=1, held=200)


def main() -> int:
    options = arguments()
    if options.server and (absent := threads.absent()):
        print(*absent, sep="\n", file=sys.stderr)
        return 2
    rounds = 1 if options.smoke else options.rounds
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        configure_logging(level="info", log_format="json")
        figures = uvloop.run(measure(rounds))
    print("µs of CPU time, in one process without a network")
    for title, figure in figures.items():
        show(title, figure)
        if title == TEN_EVENTS:
            show("  for each event", (figure - figures[PASS_THROUGH]) / 10)
    if options.server:
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, stop)
        measure_server(rounds, SMOKE if options.smoke else WHOLE)
    return 0


def measure_server(rounds: int, size: Size) -> None:
    allow_many_files()
    usable = sorted(os.sched_getaffinity(0))
    cores = {"server_core": usable[0], "load_core": usable[-1]}
    os.sched_setaffinity(0, {cores["load_core"]})  # and so the load generators, our children
    print("\nµs of CPU time a request, by thread of the server, under load")
    head(*threads.KINDS, "in all")
    for title, spent in threads.measure(rounds, rows=size.rows, **cores):
        show(title, *spent, sum(spent))
    if shares.possible():
        print("\n% of the server's CPU time by whose machine code it is, under the same load")
        head(*shares.COLUMNS)
        for title, found in shares.measure(rows=size.rows, **cores):
            show(title, *found)
    print(f"\n{size.held} requests in flight, each with one call that takes {held.DELAY} s")
    head("kB each", "µs of CPU")
    contenders = {
        "GET, a user without events": OURS,
        "bare: a call passed on": threads.BARE,
    }
    for title, figures in held.measure(contenders, held=size.held, **cores):
        show(title, *figures)


async def measure(rounds: int) -> dict[str, float]:
    """Microseconds by title. What else runs on the machine only adds, so the least counts."""
    settings = Settings(
        env="production",
        upstream_url="http://127.0.0.1",
        ops_token=OPS_TOKEN,
        breaker_cooldown=FOREVER,
        request_deadline=FOREVER,
    )
    async with whole_requests(settings) as requests:
        rows = requests | parts(settings) | await client_parts()
        figures = dict.fromkeys(rows, inf)
        make_collection_rare()
        for _ in range(rounds):
            for title, work in rows.items():
                began = time.process_time()
                count = await work()
                spent = (time.process_time() - began) / count * 1e6
                figures[title] = min(figures[title], spent)
    return figures


def head(*columns: str) -> None:
    print(f"{'':<{WIDTH}}", *(f"{column:>9}" for column in columns))


def show(title: str, *figures: float) -> None:
    print(f"{title:<{WIDTH}}", *(f"{figure:>9.3g}" for figure in figures), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument(
        "--server", action="store_true", help="also by thread of the real server (Linux)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=7,
        metavar="N",
        help="how often each figure is taken; the least counts (default: %(default)s)",
    )
    parser.add_argument("--smoke", action="store_true", help="see whether it works, in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

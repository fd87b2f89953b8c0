"""`python -m benchmarks`: measures all contenders side by side and prints one table."""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from service.tests.postgres_server import find_programs

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.chart import chart
from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.databases import Database
from benchmarks.plan import FULL, QUICK, SMOKE
from benchmarks.processes import allow_many_files
from benchmarks.scenario import Scenario
from benchmarks.scenarios import scenarios

HERE = Path(__file__).parent
TOOLS = {
    "wrk": "apt-get install wrk",
    "nginx": "apt-get install nginx-light",
    "taskset": "apt-get install util-linux",
    "node": "apt-get install nodejs npm",
}


def main() -> int:
    options = arguments()
    plan = options.plan
    everything = scenarios(plan)
    named = [c for c in CONTENDERS if c.name in options.only]
    contenders = named or list(CONTENDERS)
    chosen = [s for s in everything if s.name in options.only] or list(everything)
    if options.install:
        return install(contenders)
    absent = missing(contenders, chosen)
    if absent:
        print("Not installed:", *absent, sep="\n  ", file=sys.stderr)
        return 2

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    allow_many_files()
    usable = sorted(os.sched_getaffinity(0))
    server_core, load_core = usable[0], usable[-1]
    os.sched_setaffinity(0, {load_core})  # and so the load generators, which are its children
    bench = Bench(
        plan,
        contenders,
        everyone=bool(named) or plan.all_contenders,
        server_core=server_core,
        load_core=load_core,
        say=lambda line: print(line, flush=True),
    )
    run(bench, chosen)
    print(f"\n{report.table(bench.results)}\n", *report.notes(bench.results), sep="\n")
    client = None if options.only else client_alone(plan.rounds, usable)
    whole = plan is FULL and not options.only
    folder = options.into or (HERE if whole else HERE / "results")
    path = folder / ("results.json" if whole else f"{plan.name}.json")
    document = report.document(bench.results, plan) | {"client": client}
    report.write(document, path)
    path.with_suffix(".svg").write_text(chart(document))
    print(f"\nWritten: {path} and {path.with_suffix('.svg').name}")
    return 1 if any(OURS.title in failure for failure in bench.results.failures) else 0


def client_alone(rounds: int, cores: list[int]) -> list[dict]:
    """The rows of `python -m benchmarks.client`, in a process of its own."""
    print("\nThe HTTP client alone", flush=True)
    os.sched_setaffinity(0, cores)
    with tempfile.NamedTemporaryFile(suffix=".json") as rows:
        command = [sys.executable, "-m", "benchmarks.client", "--rounds", str(rounds)]
        subprocess.run([*command, "--json", rows.name], check=True)
        return json.load(rows)


def stop(number: int, _: object) -> None:
    """Unwind, by which every process that was started is stopped."""
    sys.exit(128 + number)


def arguments() -> argparse.Namespace:
    names = [item.name for item in (*scenarios(FULL), *CONTENDERS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    plans = parser.add_mutually_exclusive_group()
    for plan, words in (
        (QUICK, "in about three minutes; fewer contenders, wider spread"),
        (SMOKE, "only see that it works; its figures mean nothing"),
    ):
        plans.add_argument(
            f"--{plan.name}", dest="plan", action="store_const", const=plan, help=words
        )
    parser.set_defaults(plan=FULL)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=names,
        help=f"scenarios, contenders or both: {', '.join(names)}",
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where the JSON file and the chart go"
    )
    parser.add_argument("--install", action="store_true", help="install the contenders, then end")
    return parser.parse_args()


def run(bench: Bench, chosen: Sequence[Scenario]) -> None:
    began = time.monotonic()
    if bench.server_core == bench.load_core:
        bench.say("One core only: the server shares it with its load, and its figures are low.")
    bench.measure_limits()
    for scenario in chosen:
        bench.say(f"{scenario.name} ({time.monotonic() - began:.0f} s)")
        bench.run(scenario)
    bench.say(f"done ({time.monotonic() - began:.0f} s)")


def missing(contenders: Sequence[Contender], chosen: Sequence[Scenario] = ()) -> list[str]:
    """What is not installed, each with the commands that install it."""
    needed = [tool for tool in TOOLS if tool != "node"]
    if any(contender.command[0] == "node" for contender in contenders):
        needed.append("node")
    lines = [f"{tool}: {TOOLS[tool]}" for tool in needed if not shutil.which(tool)]
    if Database("postgresql") in [each.upstream for each in chosen] and not find_programs():
        lines.append("initdb: apt-get install postgresql")
    for contender in contenders:
        if not contender.needs.exists():
            commands = " && ".join(map(shlex.join, contender.install))
            lines.append(f"{contender.title}: {commands}")
    return lines


def install(contenders: Sequence[Contender]) -> int:
    """Install whatever the contenders lack, each into its own folder."""
    for contender in contenders:
        if not contender.needs.exists():
            for command in contender.install:
                subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The table, the JSON file and the machine they are true of."""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.bench import Measured, Results
from benchmarks.contenders import CONTENDERS
from benchmarks.plan import Plan

BUSY_ENOUGH = 0.85  # of its core; below that something else held the server back


def middle(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def shown(value: float) -> str:
    if math.isnan(value):
        return "failed"
    if math.isinf(value):
        return "never"
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def table(results: Results) -> str:
    present = [
        contender
        for contender in CONTENDERS
        if any(contender.name in measured.values for measured in results.rows.values())
    ]
    head = ["scenario", "unit", "limit", *(contender.title for contender in present)]
    lines = [[*head, "goal", "stands at", ""]]
    for measured in results.rows.values():
        row = measured.row
        cells = [row.title, row.unit, row.limit]
        for contender in present:
            values = measured.values.get(contender.name)
            cells.append(shown(middle(values)) if values else "")
        verdicts = [goal.judge(measured.values) for goal in row.goals]
        first, *rest = [
            [verdict.goal, verdict.figure, {True: "pass", False: "MISS", None: "?"}[verdict.met]]
            for verdict in verdicts
        ] or [["", "", ""]]
        lines.append([*cells, *first])
        lines.extend([*[""] * len(cells), *more] for more in rest)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = []
    for line in lines:
        padded = [
            cell.ljust(width) if column in (0, 1) or column >= len(head) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(padded).rstrip())
    text.insert(1, "─" * max(len(line) for line in text))
    return "\n".join(text)


def notes(results: Results) -> list[str]:
    """What qualifies the table: limits of the measurement, doubts and failures."""
    lines = [f"{name}: {shown(value)}" for name, value in results.limits.items()]
    for measured in results.rows.values():
        lines.extend(_doubts(measured))
    lines.extend(f"failed: {failure}" for failure in results.failures)
    return lines


def _doubts(measured: Measured) -> list[str]:
    if not measured.row.saturates:
        return []
    lines = []
    for contender in CONTENDERS:
        rounds = measured.busy.get(contender.name, [])
        server = middle([busy.server for busy in rounds])
        cpu = cpu_microseconds(measured, contender.name)
        if server < BUSY_ENOUGH and not math.isnan(cpu):
            others = middle([busy.others for busy in rounds])
            lines.append(
                f"doubtful: {measured.row.title}, {contender.title}: it had {server:.0%} of its "
                f"core, other processes {others:.0%}; a request took {shown(cpu)} µs of CPU"
            )
    return lines


def cpu_microseconds(measured: Measured, name: str) -> float:
    """The server's CPU time for a request; what else its core did hardly changes that."""
    rounds = zip(measured.busy.get(name, []), measured.values.get(name, []), strict=False)
    return middle([busy.server / rate * 1e6 for busy, rate in rounds if rate > 0])


def document(results: Results, plan: Plan) -> dict:
    return {
        "plan": plan.name,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "limits": results.limits,
        "rows": [_row(measured) for measured in results.rows.values()],
        "failures": results.failures,
    }


def _row(measured: Measured) -> dict:
    row = measured.row
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "limit": row.limit,
        "more_is_better": row.more_is_better,
        "median": {name: _finite(middle(values)) for name, values in measured.values.items()},
        "rounds": {name: [*map(_finite, values)] for name, values in measured.values.items()},
        "busy": {
            name: {
                part: _finite(middle([getattr(busy, part) for busy in rounds]))
                for part in ("server", "others", "upstream", "load")
            }
            for name, rounds in measured.busy.items()
        },
        "cpu_us_per_request": {
            name: _finite(cpu_microseconds(measured, name))
            for name in measured.busy
            if row.saturates
        },
        "goals": [vars(goal.judge(measured.values)) for goal in row.goals],
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def machine() -> dict[str, str]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": _version("node", "--version"),
        "nginx": _version("nginx", "-v"),
        "wrk": _version("wrk", "--version"),
    }


def _version(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "absent"
    return (run.stdout + run.stderr).splitlines()[0].strip()


def write(document: dict, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

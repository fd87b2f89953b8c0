"""The benchmark starts, finds our replies right, and finishes. Its times are not judged."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROXIED = {"pass-distinct", "pass-hot"}

pytestmark = pytest.mark.needs("wrk", "nginx", "taskset")


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ("sqlite", {"sqlite"}),
        pytest.param("pass-through", PROXIED, marks=pytest.mark.long),
        pytest.param(
            "open-breaker", {"refused", "refused-share", "refused-p99"}, marks=pytest.mark.long
        ),
    ],
)
def test_a_small_run_measures_every_row_and_writes_its_results(
    tmp_path: Path, section: str, rows: set[str]
):
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--into", tmp_path]
    command += ["--only", "ours", "nginx", section]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "smoke.json").read_text())
    assert found["failures"] == []
    medians = {row["key"]: row["median"]["ours"] for row in found["rows"]}
    assert medians.keys() == rows
    assert all(value > 0 for value in medians.values())
    proxied = {row["key"] for row in found["rows"] if row["median"].get("nginx")}
    assert proxied == rows & PROXIED
    assert (tmp_path / "smoke.svg").read_text().startswith("<svg")


@pytest.mark.long
def test_the_layers_and_threads_of_a_request_have_their_figures():
    command = [sys.executable, "-m", "benchmarks.layers", "--server", "--smoke"]

    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr
    in_process, under_load, *shares, in_flight = run.stdout.split("\n\n")
    layers = dict(re.findall(r"^(\S.*?) {2,}(\S+)$", in_process, re.MULTILINE))
    assert layers.keys() >= {
        "GET /livez",
        "GET, a user with ten events",
        "GET, load shed",
        "POST, breaker open",
        "Starlette's router",
        "bulkhead",
    }
    assert all(float(figure) > 0 for figure in layers.values())
    threads = [line.split()[-3:] for line in under_load.splitlines()[2:]]
    assert len(threads) == len(["ours", "ours with a cache", "bare"])
    for python, server, total in threads:
        assert float(python) > 0
        assert float(server) > 0
        assert float(total) == pytest.approx(float(python) + float(server), rel=0.05)
    for line in [line for table in shares for line in table.splitlines()[2:]]:
        assert 90 < sum(map(float, line.split()[-6:])) < 101
    held = [line.split()[-2:] for line in in_flight.splitlines()[2:]]
    assert len(held) == 2
    assert all(float(figure) > 0 for row in held for figure in row)

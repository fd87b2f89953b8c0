"""The benchmark starts, finds our replies right, and finishes. Its times are not judged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tools():
    for tool, package in (("wrk", "wrk"), ("nginx", "nginx-light"), ("taskset", "util-linux")):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: apt-get install {package}")


def test_a_small_run_measures_every_row_and_writes_its_results(tools, tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--into", tmp_path]
    command += ["--only", "ours", "pass-through", "open-breaker"]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "smoke.json").read_text())
    assert found["failures"] == []
    medians = {row["key"]: row["median"]["ours"] for row in found["rows"]}
    assert medians.keys() == {
        "pass-distinct",
        "pass-hot",
        "refused",
        "refused-share",
        "refused-p99",
    }
    assert all(value > 0 for value in medians.values())
    assert (tmp_path / "smoke.svg").read_text().startswith("<svg")

"""What becomes of the folder of temporary files does not matter to the service."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .processes import Process, event_service
from .test_surroundings import NOWHERE, Client, events, get, metric, until, workers


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB without a byte left."""
    folder = tmp_path / "full"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs mount, as root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs mount, as root: {mounted.stderr.decode().strip()}")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
        with pytest.raises(OSError, match="space"):
            (folder / "all").write_bytes(bytes(4 << 20))
        yield folder


def test_a_full_temporary_folder_stops_nothing(full: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(full))
    with event_service(NOWHERE, WORKERS="2", LOG_FORMAT="json") as (url, process):
        all_of_it_works(url, process)
    assert [each.name for each in full.iterdir()] == ["all"]


def test_a_removed_temporary_folder_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cleaned"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    with event_service(NOWHERE, WORKERS="2", LOG_FORMAT="json") as (url, process):
        until(lambda: events(process).count("service started") == 2, process.output)
        shutil.rmtree(folder)
        all_of_it_works(url, process)


def all_of_it_works(url: str, process: Process) -> None:
    """Requests, totals, the log level, a reload and the loss of a worker."""
    until(lambda: events(process).count("service started") == 2, process.output)
    for _ in range(200):
        assert get(url, "/docs").status == 200
    with Client(url) as client:
        assert client.put("/ops/log-level", b'{"level":"warning"}').status == 200
        assert client.put("/ops/log-level", b'{"level":"info"}').status == 200
    os.kill(workers(process)[0], signal.SIGKILL)
    until(lambda: events(process).count("service started") == 3, process.output)
    old = set(workers(process))
    process.send(signal.SIGHUP)
    until(lambda: events(process).count("service started") == 5, process.output)
    until(lambda: not old & set(workers(process)), "old workers stay")
    # A worker may be killed between a reply and its count.
    assert 199 <= metric(url, 'http_requests_total{method="GET",route="/docs"') <= 200
    told = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    wrong = [line["event"] for line in told if line["level"] in {"warning", "error"}]
    assert sorted(wrong) == ["log level changed", "log level changed", "worker ended by itself"]

"""In whose machine code the server spends its CPU time, by `perf`."""

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.contenders import OURS, Server, Tuning, start
from benchmarks.load import LoadFailed, closed
from benchmarks.threads import LOADS
from benchmarks.upstreams import Fast

SECONDS = 2
EVERY = 997  # samples a second; a prime, or it could keep step with what it looks at
COLUMNS = ("Python", "system", "Granian", "uvloop", "llhttp", "others")
# How the files are called that hold the code.
FILES = {
    "libpython": "Python",
    "python3": "Python",
    "_asyncio": "Python",
    "[kernel": "system",
    "_granian": "Granian",
    "loop.cpython": "uvloop",
    "parser.cpython": "llhttp",
}


def possible() -> bool:
    """Whether perf is installed and may be used."""
    if not shutil.which("perf"):
        return False
    trial = ("perf", "record", "-e", "cpu-clock", "-o", "/dev/null", "--", "true")
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def measure(*, rows: int, server_core: int, load_core: int) -> Iterator[tuple[str, list[float]]]:
    """For each of our first `rows` loads the percent of the server's CPU time, by `COLUMNS`."""
    with (
        TemporaryDirectory(prefix="event-service-benchmark-") as folder,
        Fast(refuses_events=True).running(load_core) as upstream,
        start(
            OURS, upstream=upstream.url, core=server_core, tuning=Tuning(), folder=Path(folder)
        ) as server,
    ):
        for title, (load, _) in islice(LOADS[OURS].items(), rows):
            yield title, _shares(server, load, Path(folder) / "perf.data")


def _shares(server: Server, load: tuple, data: Path) -> list[float]:
    pids = ",".join(str(process.pid) for process in server.process.tree())
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", EVERY, "-p", pids, "-o", data]
    recording = subprocess.Popen(
        [*map(str, command), "--", "sleep", str(SECONDS)], stderr=subprocess.PIPE
    )
    try:
        time.sleep(0.2)  # until it has begun
        closed(server.port, SECONDS, *load)
        _, errors = recording.communicate(timeout=30)
    finally:
        recording.kill()
    if recording.returncode:
        raise LoadFailed(f"perf: {errors.decode()}")
    report = ("perf", "report", "-i", str(data), "--stdio", "--sort", "dso", "-t", ";")
    lines = subprocess.run(report, capture_output=True, text=True, check=True).stdout.splitlines()
    shares: Counter[str] = Counter()
    for line in lines:
        share, _, file = line.partition(";")
        if file and not line.startswith("#"):
            shares[_column(file.strip())] += float(share.strip().rstrip("%"))
    return [shares[column] for column in COLUMNS]


def _column(file: str) -> str:
    return next((FILES[name] for name in FILES if file.startswith(name)), "others")

"""Uses each wheel as a stranger would: alone, in an empty environment, far from this repository.

`make check-wheels` builds them before. Dependencies come from the package index.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.claims import expect, fetch, free_port, get, wait_for

REPOSITORY = Path(__file__).resolve().parent.parent
# The folders of the distributions whose own tests are run, and what those need.
TESTED = {
    "halfopen": "halfopen",
    "event-mock-upstream": "mock-upstream",
    "event-service": "service",
}
EXTRAS = {"event-service": "[otel]"}
TEST_TOOLS = ["anyio", "hypothesis", "pytest", "pytest-timeout"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=REPOSITORY / "dist", help="the wheels' folder")
    dist = parser.parse_args().dist.resolve()
    for distribution, folder in TESTED.items():
        with tempfile.TemporaryDirectory() as empty:
            check_tests(distribution, REPOSITORY / folder, dist, Path(empty))
    with tempfile.TemporaryDirectory() as empty:
        check_service(dist, Path(empty))


def check_tests(distribution: str, source: Path, dist: Path, empty: Path) -> None:
    python = environment(
        empty, dist, distribution, *TEST_TOOLS, extras=EXTRAS.get(distribution, "")
    )
    shutil.copytree(source / "tests", empty / "tests")
    unit = empty / "tests/unit"
    tests = unit if unit.exists() else empty / "tests"
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(source / name, empty)
    print(f"\n{distribution}: its tests, with its wheel alone", flush=True)
    subprocess.run([python, "-m", "pytest", "-q", "--timeout", "120", tests], cwd=empty, check=True)


def check_service(dist: Path, empty: Path) -> None:
    python = environment(empty, dist, "event-service")
    port, upstream_port = free_port(), free_port()
    base = f"http://127.0.0.1:{port}"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")}
    service = subprocess.Popen(
        [python.parent / "event-service", "dev"],
        cwd=empty,
        env={
            **inherited,
            "EVENT_SERVICE_PORT": str(port),
            "EVENT_SERVICE_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}",
        },
    )
    try:
        wait_for(f"{base}/livez", service)
        users = get(f"{base}/api/getUsers")
        events = get(f"{base}/api/getEventsByUserId/1")
        added = get(f"{base}/api/addEvent", {"userId": "1", "title": "Installed from a wheel"})
        titles = [event["title"] for event in get(f"{base}/api/getEvents")]
        page = fetch(f"{base}/dashboard").decode()
        metrics = fetch(f"{base}/metrics").decode()
    finally:
        service.send_signal(signal.SIGTERM)
        code = service.wait(30)
    names = [user["name"] for user in users]
    expect(names[0] == "Alice Johnson", "the service, from its wheel, lists users")
    expect([event["id"] for event in events] == ["101", "102"], "getEventsByUserId lists events")
    expect(added["success"] is True, "addEvent adds an event")
    expect("Installed from a wheel" in titles, "getEvents lists it")
    expect("<html" in page, "the dashboard's page is in the wheel")
    expect("http_requests_total" in metrics, "metrics are served")
    expect(code == 0, "SIGTERM ends it with 0")


def environment(empty: Path, dist: Path, distribution: str, *tools: str, extras: str = "") -> Path:
    """A virtual environment with one of our wheels and what it asks for; its interpreter."""
    venv = empty / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin/python"
    # Only what is built here may be ours, whatever the package index has under these names.
    (wheel,) = dist.glob(f"{distribution.replace('-', '_')}-*.whl")
    ours: list[str | Path] = [f"{wheel}{extras}", *siblings(distribution, dist)]
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, *ours, *tools], check=True)
    return python


def siblings(distribution: str, dist: Path) -> list[Path]:
    if distribution != "event-service":
        return []
    return [*dist.glob("halfopen-*.whl"), *dist.glob("event_mock_upstream-*.whl")]


if __name__ == "__main__":
    main()

"""Uses each wheel as a user would: alone, in an empty environment, outside this repository.

`make check-wheels` builds the wheels first. All other packages are downloaded in their pinned
versions. Then pip installs each wheel without an index, with dependencies only from that folder. So
a dependency that a wheel does not declare is missing here, and later releases cannot change the
result.
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
# The folder of each distribution and the extras that its tests need.
TESTED = {
    "halfopen": "halfopen",
    "event-mock-upstream": "mock-upstream",
    "event-service[cluster,otel,postgres]": "service",
}
TEST_TOOLS = ["anyio", "hypothesis", "pytest", "pytest-timeout"]
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
PINNED = ["--no-deps", "--only-binary=:all:", "--require-hashes"]
PINS = ["run.txt", "mock.txt", "wheels.txt"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=REPOSITORY / "dist", help="the wheels' folder")
    dist = parser.parse_args().dist.resolve()
    with tempfile.TemporaryDirectory() as pinned:
        download(Path(pinned))
        for wheel in dist.glob("*.whl"):
            shutil.copy(wheel, pinned)
        for requirement, folder in TESTED.items():
            with tempfile.TemporaryDirectory() as empty:
                check_tests(requirement, REPOSITORY / folder, Path(pinned), Path(empty))
        with tempfile.TemporaryDirectory() as empty:
            check_production(Path(pinned), Path(empty))
        with tempfile.TemporaryDirectory() as empty:
            check_service(Path(pinned), Path(empty))


def download(folder: Path) -> None:
    files = [f"--requirement={REPOSITORY / 'requirements' / name}" for name in PINS]
    command = [sys.executable, *PIP, "download", *PINNED, f"--dest={folder}", *files]
    subprocess.run(command, check=True)


def check_tests(requirement: str, source: Path, pinned: Path, empty: Path) -> None:
    python = environment(empty, pinned, requirement, *TEST_TOOLS)
    shutil.copytree(source / "tests", empty / "tests")
    unit = empty / "tests/unit"
    tests = unit if unit.exists() else empty / "tests"
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(source / name, empty)
    if source.name == "service":
        # Shared by all tests of the repository.
        shutil.copy(REPOSITORY / "conftest.py", empty)
    print(f"\n{requirement}: its tests, with its wheel alone", flush=True)
    subprocess.run(
        [python, "-m", "pytest", "-q", "--import-mode=importlib", "--timeout", "120", tests],
        cwd=empty,
        check=True,
    )


def check_production(pinned: Path, empty: Path) -> None:
    """Without extras there is no mock, and `dev` says how to install it."""
    python = environment(empty, pinned, "event-service")
    listed = subprocess.run(
        [python, *PIP, "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    names = {line.partition("==")[0] for line in listed.stdout.splitlines()}
    expect("aiohttp" not in names, "the service alone brings no aiohttp")
    dev = subprocess.run(
        [python.parent / "event-service", "dev"],
        cwd=empty,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = (dev.stdout + dev.stderr).splitlines()
    expect(dev.returncode != 0, "`event-service dev` ends without the mock")
    expect(len(said) == 1, "and says why in one line")
    expect("event-service[dev]" in said[0], "which names the extra to install")


def surroundings(**more: str) -> dict[str, str]:
    """The environment without the user's own settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")} | more


def check_service(pinned: Path, empty: Path) -> None:
    python = environment(empty, pinned, "event-service[dev]")
    port, upstream_port = free_port(), free_port()
    base = f"http://127.0.0.1:{port}"
    service = subprocess.Popen(
        [python.parent / "event-service", "dev"],
        cwd=empty,
        env=surroundings(
            EVENT_SERVICE_PORT=str(port),
            EVENT_SERVICE_UPSTREAM_URL=f"http://127.0.0.1:{upstream_port}",
        ),
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


def environment(empty: Path, pinned: Path, *requirements: str) -> Path:
    """Create a virtual environment with these and their dependencies; returns its interpreter."""
    venv = empty / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin/python"
    source = ["--no-index", f"--find-links={pinned}"]
    subprocess.run([python, *PIP, "install", *source, *requirements], check=True)
    subprocess.run([python, *PIP, "check"], check=True)
    return python


if __name__ == "__main__":
    main()

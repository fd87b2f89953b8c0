"""`event-service dev` as somebody uses it who works on the service, or in front of it."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from .processes import Process, free_port, mock_upstream

PACKAGE = Path(__file__).parent.parent / "service/src/event_service"
NEW_EVENT = json.dumps({"userId": "1", "title": "Standup"}).encode()


@contextmanager
def dev(
    *options: str, environ: dict[str, str] | None = None, **settings: str
) -> Iterator[tuple[int, Process]]:
    """`dev` at a port of its own, once it says what to try: from then on everything answers."""
    port = free_port()
    settings = {"UPSTREAM_URL": f"http://127.0.0.1:{free_port()}", **settings}
    variables = {f"EVENT_SERVICE_{name}": value for name, value in settings.items()}
    variables |= environ or {}
    process = Process("event-service", "dev", "--port", str(port), *options, **variables)
    try:
        process.wait_for_output("Ctrl-C stops")
        yield port, process
    finally:
        process.stop()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as reply:
        body: bytes = reply.read()
        return body


def add(port: int) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/addEvent", NEW_EVENT, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def assert_nothing_listens(port: int) -> None:
    with socket.socket() as listener, pytest.raises(ConnectionRefusedError):
        listener.connect(("127.0.0.1", port))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_names_its_addresses_first_says_what_to_try_and_stops_both(number: signal.Signals):
    upstream_port = free_port()
    with dev("--upstream-url", f"http://127.0.0.1:{upstream_port}") as (port, process):
        assert json.loads(get(f"http://127.0.0.1:{port}/api/getUsers"))
        process.send(number)
        assert process.wait() == 0

    lines = process.output.splitlines()
    base = f"http://127.0.0.1:{port}"
    assert [line.split()[0] for line in lines[2:6]] == [
        base,
        f"{base}/dashboard",
        f"{base}/docs",
        f"http://127.0.0.1:{upstream_port}",
    ]
    assert f"curl {base}/api/getEventsByUserId/1" in process.output
    assert "/livez" not in process.output
    assert [each for each in lines if each.startswith("  ") and len(each) > 100] == []
    assert "Traceback" not in process.output
    for each in (port, upstream_port):
        assert_nothing_listens(each)


def test_it_ends_when_the_mock_ends():
    with dev() as (port, process):
        os.kill(process.child("mock_upstream"), signal.SIGKILL)
        assert process.wait() == 1

    assert "the mock upstream ended by itself" in process.output
    assert_nothing_listens(port)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends them")
def test_what_it_started_ends_when_it_is_killed():
    with dev() as (_, process):
        children = [psutil.Process(pid) for pid in process.pids()[1:]]
        process.send(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=30)

    assert len(children) == len(["the mock", "the service", "its worker"])
    assert alive == []


def test_in_front_of_an_upstream_of_ones_own_there_is_no_mock():
    with mock_upstream("--users", "7") as upstream, dev(UPSTREAM_URL=upstream) as (port, process):
        assert len(json.loads(get(f"http://127.0.0.1:{port}/api/getUsers"))) == 7
        with pytest.raises(ValueError, match="not enough values"):
            process.child("mock_upstream")
        assert "the mock" not in process.output


def test_it_has_an_outbox_in_a_folder_that_git_ignores():
    with dev() as (_, process):
        environ = psutil.Process(process.child("event_service")).environ()
        url = environ["EVENT_SERVICE_OUTBOX_URL"]
    with dev(OUTBOX_URL="") as (_, process):
        environ = psutil.Process(process.child("event_service")).environ()

    assert environ["EVENT_SERVICE_OUTBOX_URL"] == ""
    folder = Path(url.removeprefix("sqlite:///")).parent
    assert (folder / ".gitignore").read_text() == "*\n"


def test_it_takes_events_for_later():
    with dev() as (port, process):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/addEvent",
            NEW_EVENT,
            {"Content-Type": "application/json", "Prefer": "respond-async"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 202
            location = reply.headers["Location"]
        while json.loads(get(f"http://127.0.0.1:{port}{location}"))["status"] != "delivered":
            time.sleep(0.05)
        assert "prefer: respond-async" in process.output


def test_an_outage_ends_within_two_cooldowns_as_the_greeting_says():
    cooldown = 1.0
    with dev(BREAKER_COOLDOWN=str(cooldown)) as (port, process):
        assert "down for 1.2 s" in process.output
        assert [add(port) for _ in range(9)] == [200] * 5 + [503] * 4
        refused = 0
        while add(port) != 200:
            refused += 1
            time.sleep(cooldown / 10)
            assert refused < 200, "the circuit does not close"

    transitions = re.findall(r'"message":"addEvent: ([^(]+) \(', process.output)
    assert transitions[0] == "closed → open"
    assert transitions[-1] == "half-open → closed"
    assert transitions.count("open → half-open") <= 2


def test_a_change_of_the_source_starts_the_service_anew(tmp_path: Path):
    copy = tmp_path / "event_service"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = copy / "routes/openapi.py"
    original = source.read_text()
    # What stands there is imported in place of what is installed.
    with dev(environ={"PYTHONPATH": str(tmp_path)}) as (port, process):
        assert name_of(port) == "Event Service"

        source.write_text("this is no Python")
        process.wait_for_output("the service does not run")
        source.write_text(original.replace('"title": "Event Service"', '"title": "Changed"'))

        process.wait_for(f"http://127.0.0.1:{port}/livez")
        assert name_of(port) == "Changed"
        assert process.running


def name_of(port: int) -> str:
    name: str = json.loads(get(f"http://127.0.0.1:{port}/"))["name"]
    return name


def test_it_refuses_to_run_in_production():
    process = Process(
        "event-service",
        "dev",
        EVENT_SERVICE_ENV="production",
        EVENT_SERVICE_UPSTREAM_URL="http://127.0.0.1:9",
    )

    assert process.wait() == 2
    assert "`dev` is for development" in process.output


def test_an_option_overrides_its_variable_and_is_validated_alike():
    process = Process("event-service", "serve", "--port", "no", EVENT_SERVICE_PORT="3000")

    assert process.wait() == 2
    assert process.output.splitlines() == [
        "The configuration is wrong:",
        "EVENT_SERVICE_PORT: must be a whole number from 1 to 65535 (got 'no')",
    ]


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_help_names_the_variable_of_each_flag(command: str):
    process = Process("event-service", command, "--help", COLUMNS="200", TERM="dumb")

    assert process.wait() == 0
    for name in ("HOST", "PORT", "UPSTREAM_URL"):
        assert f"EVENT_SERVICE_{name}" in process.output


def test_it_says_its_version():
    process = Process("event-service", "--version")

    assert process.wait() == 0
    assert re.fullmatch(r"event-service \d+\.\d+\.\d+\S*\n", process.output)

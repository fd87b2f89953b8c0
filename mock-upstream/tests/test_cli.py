import json
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from importlib.metadata import version

import pytest

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "mock_upstream"]


@contextmanager
def running(*options, command=COMMAND):
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, process.stdout.readline().split()[-1]
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


def run(*options):
    return subprocess.run(
        [*COMMAND, *options], check=False, capture_output=True, text=True, timeout=20
    )


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_stops_on_a_signal(number):
    with running() as (process, url):
        assert get(f"{url}/healthz") == {"status": "ok"}

        process.send_signal(number)

        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""


def test_it_stops_although_requests_hang():
    with running("--event-delay", "3600") as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as hanging:
            hanging.sendall(b"GET /getEventById/101 HTTP/1.1\r\nHost: x\r\n\r\n")
            while not get(f"{url}/__admin/requests?limit=0")["in_flight"]:
                pass

            process.send_signal(signal.SIGTERM)

            assert process.wait(timeout=20) == 0


def test_the_options_reach_the_upstream():
    options = ["--users", "2", "--events-per-user", "3", "--event-delay", "0.01"]
    with running(*options, "--accept", "1", "--refuse", "2") as (_, url):
        users = get(f"{url}/getUsers")

        assert [user["events"] for user in users] == [["1-1", "1-2", "1-3"], ["2-1", "2-2", "2-3"]]
        assert get(f"{url}/__admin/cycle") == {"accept": 1, "refuse": 2}
        assert get(f"{url}/__admin/event-delay") == {"seconds": 0.01}


def test_the_dialect_and_the_outage_reach_the_upstream():
    with running("--dialect", "numbers", "--outage", "12") as (_, url):
        assert get(f"{url}/getUserById/1")["id"] == 1
        assert get(f"{url}/__admin/cycle") == {"accept": 5, "refuse": 10, "outage": 12.0}


def test_verbose_prints_a_line_for_each_call():
    with running("--verbose") as (process, url):
        get(f"{url}/__admin/health")
        get(f"{url}/getUserById/1")
        urllib.request.urlopen(
            urllib.request.Request(
                f"{url}/__admin/faults/getUsers", b'{"status":201}', method="PUT"
            ),
            timeout=10,
        ).close()
        get(f"{url}/getUsers")
        lines = [process.stdout.readline() for _ in range(2)]

    assert re.fullmatch(r"\d\d:\d\d:\d\d  GET   /getUserById/1  200  \d+\.\d ms\n", lines[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d  GET   /getUsers  201  \d+\.\d ms  status\n", lines[1])


def test_it_says_its_version():
    done = run("--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"mock-upstream {version('event-mock-upstream')}\n"


def test_its_help_mentions_the_faults():
    text = run("--help").stdout

    # As it can be pasted, however narrow the terminal is.
    assert re.search(
        r"^ *curl -X PUT \S+/__admin/faults/getUsers \\\n *-d '{.+}'$", text, re.MULTILINE
    )


def test_the_seed_decides_the_generated_data():
    events = []
    for seed in ("5", "5", "6"):
        with running("--users", "2", "--seed", seed) as (_, url):
            events.append(get(f"{url}/getEvents"))

    assert events[0] == events[1] != events[2]


def test_events_per_user_alone_generates_for_three_users():
    with running("--events-per-user", "1") as (_, url):
        assert [user["events"] for user in get(f"{url}/getUsers")] == [["1-1"], ["2-1"], ["3-1"]]


def test_a_taken_port_is_said_plainly():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = run("--port", str(port))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mock upstream: port {port} is taken\n"


def test_an_address_that_is_not_ours_is_said_plainly():
    done = run("--host", "192.0.2.1", "--port", "0")

    assert done.returncode == 1
    assert done.stderr.startswith("mock upstream: cannot listen on 192.0.2.1:0: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "65536"],
        ["--port", "x"],
        ["--event-delay", "-1"],
        ["--event-delay", "nan"],
        ["--event-delay", "inf"],
        ["--users", "0"],
        ["--refuse", "-1"],
        ["--outage", "-1"],
        ["--dialect", "esperanto"],
        ["--bogus", "1"],
    ],
)
def test_a_wrong_option_is_refused_by_name(options):
    done = run(*options)

    assert done.returncode == 2
    assert options[0] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux shows another's limits")
def test_it_allows_itself_as_many_sockets_as_it_may():
    few_sockets = ["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh", *COMMAND]
    with running(command=few_sockets) as (process, _):
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)

    assert soft == hard

"""The service outlives what goes wrong around its processes."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import psutil
import pytest

from .processes import BIN, Process, event_service, free_port, mock_upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
NOWHERE = "http://127.0.0.1:9"
PATIENCE = 30.0


def until(true: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


class Reply(NamedTuple):
    status: int
    connection: str | None
    body: bytes


class Client:
    """One connection, as long as the service keeps it; then another one."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)

    def get(self, path: str, **headers: str) -> Reply:
        return self._ask("GET", path, **headers)

    def put(self, path: str, body: bytes) -> Reply:
        return self._ask("PUT", path, body)

    def add_event(self) -> Reply:
        return self._ask("POST", "/api/addEvent", b'{"userId":"1","title":"Standup"}')

    def _ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        if body is not None:
            headers["content-type"] = "application/json"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return Reply(response.status, response.getheader("connection"), response.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def get(url: str, path: str) -> Reply:
    with Client(url) as client:
        return client.get(path, connection="close")


def metric(url: str, name: str) -> float:
    lines = get(url, "/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def connected(url: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    client.settimeout(PATIENCE)
    return client


def ask_many(url: str, path: str, times: int) -> None:
    """All at once, on one connection."""
    with connected(url) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode() * times)
        found = b""
        while found.count(b"HTTP/1.1 ") < times:
            found += client.recv(1 << 16)


def events(process: Process) -> list[str]:
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    return [line["event"] for line in lines]


def workers(process: Process) -> list[int]:
    return process.pids()[1:]


@contextmanager
def writing_to(output: int, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    settings = {"ENV": "testing", "PORT": str(port), "UPSTREAM_URL": NOWHERE, "LOG_FORMAT": "json"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")}
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [str(BIN / "event-service"), "serve"],
            env={**inherited, **{f"EVENT_SERVICE_{name}": each for name, each in settings.items()}},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(url), "it does not answer")
        yield url, process
    finally:
        process.kill()
        process.wait()
    assert (folder / "errors").read_bytes() == b""


def answers(url: str) -> bool:
    try:
        return get(url, "/livez").status == 200
    except OSError:
        return False


def test_an_unread_log_blocks_nothing_and_the_lost_lines_are_counted(tmp_path: Path):
    reader, writer = os.pipe()
    path = "/" + "x" * 1000
    with writing_to(writer, tmp_path) as (url, process):
        os.close(writer)
        while not metric(url, "log_lines_dropped_total"):
            ask_many(url, path, 200)
        dropped = metric(url, "log_lines_dropped_total")

        os.set_blocking(reader, False)
        found = b""

        def told() -> bool:
            nonlocal found
            try:
                found += os.read(reader, 1 << 20)
            except BlockingIOError:
                time.sleep(0.02)
            return b'"log lines dropped"' in found

        until(told, "it does not say what was lost")
        until(lambda: told() and found.endswith(b"\n"), "half a line")
        process.terminate()
        assert process.wait(PATIENCE) == 0
        while rest := os.read(reader, 1 << 20):
            found += rest
    os.close(reader)

    lines = [json.loads(line) for line in found.splitlines()]
    lost = [line for line in lines if line["event"] == "log lines dropped"]
    assert sum(line["lines"] for line in lost) >= dropped
    assert {line["level"] for line in lost} == {"warning"}
    assert lines[-1]["event"] == "service stopped"


def test_a_log_that_nobody_reads_does_not_hold_up_the_end(tmp_path: Path):
    reader, writer = os.pipe()
    with writing_to(writer, tmp_path) as (url, process):
        os.close(writer)
        ask_many(url, "/livez", 400)
        process.terminate()
        began = time.monotonic()
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 4
    os.close(reader)


def test_a_full_disk_stops_nothing(tmp_path: Path):
    full = os.open("/dev/full", os.O_WRONLY)
    with writing_to(full, tmp_path) as (url, process):
        for _ in range(20):
            assert get(url, "/livez").status == 200
        until(lambda: metric(url, "log_lines_dropped_total") >= 20, "nothing is counted as lost")
        process.terminate()
        assert process.wait(PATIENCE) == 0
    os.close(full)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_serves_with_closed_standard_streams(closed: str):
    port = free_port()
    with started(
        *("/bin/sh", "-c", f"exec {BIN / 'event-service'} serve {closed}"),
        EVENT_SERVICE_ENV="testing",
        EVENT_SERVICE_PORT=str(port),
        EVENT_SERVICE_UPSTREAM_URL=NOWHERE,
    ) as process:
        process.wait_for(f"http://127.0.0.1:{port}/livez")
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        assert "Traceback" not in process.output


def test_with_few_files_and_many_connections_it_serves_on_and_says_so_once():
    """A lack of our own files is not the upstream's failure."""
    command = f"ulimit -n 64; exec {BIN / 'event-service'} serve"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        started(
            *("/bin/sh", "-c", command),
            EVENT_SERVICE_ENV="testing",
            EVENT_SERVICE_PORT=str(port),
            EVENT_SERVICE_UPSTREAM_URL=upstream,
            EVENT_SERVICE_LOG_FORMAT="json",
        ) as process,
    ):
        process.wait_for(f"{url}/livez")
        with ExitStack() as stack:
            kept = stack.enter_context(Client(url))
            assert kept.get("/livez").status == 200
            for _ in range(200):
                stack.enter_context(connected(url))
            process.wait_for_output("out of file descriptors")
            service = psutil.Process(workers(process)[0])
            before = sum(service.cpu_times()[:2])
            time.sleep(1)  # the time in which it would spin
            assert sum(service.cpu_times()[:2]) - before < 0.7
            assert [kept.add_event().status for _ in range(4)] == [200] * 4
            circuit = b'circuit_breaker_state{breaker="addEvent",state="closed"} 1.0'
            assert circuit in kept.get("/metrics").body
        began = time.monotonic()
        until(lambda: answers(url), "it is gone")
        assert time.monotonic() - began < 2
    assert events(process).count("out of file descriptors: connections wait") == 1


@contextmanager
def started(*command: str, **environ: str) -> Iterator[Process]:
    process = Process(*command, **environ)
    try:
        yield process
    finally:
        process.stop()


def test_a_worker_that_is_killed_again_and_again_does_not_end_the_others():
    with event_service(NOWHERE, WORKERS="2", LOG_FORMAT="json") as (url, process):
        until(lambda: events(process).count("service started") == 2, process.output)
        survivor, *_ = workers(process)
        for times in range(1, 5):
            (victim,) = [pid for pid in workers(process) if pid != survivor]
            os.kill(victim, signal.SIGKILL)
            until(lambda times=times: events(process).count("service started") == 2 + times, "lost")
        assert psutil.pid_exists(survivor)
        assert {get(url, "/livez").status for _ in range(20)} == {200}
        assert events(process).count("worker ended by itself") == 4


def test_workers_end_when_what_started_them_is_killed():
    with event_service(NOWHERE, WORKERS="2", LOG_FORMAT="json") as (_, process):
        until(lambda: events(process).count("service started") == 2, process.output)
        orphans = [psutil.Process(pid) for pid in workers(process)]
        process.send(signal.SIGKILL)
        _, alive = psutil.wait_procs(orphans, timeout=PATIENCE)

    assert alive == []
    assert events(process).count("service stopped") == 2


def test_a_reload_loses_nothing_keeps_totals_and_ends_kept_connections():
    with event_service(NOWHERE, WORKERS="2", LOG_FORMAT="json") as (url, process):
        until(lambda: events(process).count("service started") == 2, process.output)
        old = workers(process)
        asked, closed = 0, 0
        process.send(signal.SIGHUP)
        with Client(url) as client:
            while set(old) & set(workers(process)) or not closed:
                reply = client.get("/docs")
                assert reply.status == 200
                closed += reply.connection == "close"
                assert get(url, "/readyz").status == 200
                asked += 1
                assert asked < 100_000
        assert len(workers(process)) == 2
        name = 'http_requests_total{method="GET",route="/docs",status="200"}'
        assert metric(url, name) == asked


def test_many_reloads_of_four_workers_leave_nothing_behind(times: Callable[[int, int], int]):
    """Neither files, nor memory, nor series of workers that have ended."""
    with event_service(NOWHERE, WORKERS="4", LOG_FORMAT="json") as (url, process):
        until(lambda: events(process).count("service started") == 4, process.output)
        asked, before = 0, held(process)
        for reload in range(1, 1 + times(6, 24)):
            assert get(url, "/docs").status == 200
            asked += 1
            old = set(workers(process))
            process.send(signal.SIGHUP)
            until(
                lambda reload=reload: events(process).count("service started") == 4 * (reload + 1),
                process.output,
            )
            until(lambda old=old: not old & set(workers(process)), "old workers stay")
        assert len(workers(process)) == 4
        assert held(process) == before
        lines = get(url, "/metrics").body.decode().splitlines()
        docs = [line for line in lines if line.startswith("http_requests_total") and "docs" in line]
        assert docs == [f'http_requests_total{{method="GET",route="/docs",status="200"}} {asked}.0']


def held(process: Process) -> tuple[int, int]:
    """How many files the supervisor holds open, and how much memory it shares with its workers."""
    supervisor = psutil.Process(process.pids()[0])
    shared = [each for each in supervisor.memory_maps(grouped=False) if "s" in each.perms]
    return supervisor.num_fds(), sum(size(each.addr) for each in shared)


def size(addresses: str) -> int:
    first, last = (int(part, 16) for part in addresses.split("-"))
    return last - first


def test_while_it_drains_it_is_not_ready_and_still_takes_connections():
    with event_service(NOWHERE, DRAIN="2", LOG_FORMAT="json") as (url, process):
        with Client(url) as client:
            assert client.get("/livez").connection is None
            process.send(signal.SIGTERM)
            until(lambda: get(url, "/readyz").status == 503, "it says that it is ready")
            reply = client.get("/readyz")
            assert json.loads(reply.body)["status"] == "stopping"
            assert reply.connection == "close"
            assert client.get("/livez").status == 200
        assert process.wait() == 0


def test_an_idle_connection_stays_open_for_as_long_as_is_set():
    with (
        event_service(NOWHERE, KEEP_ALIVE="1") as (short, _),
        event_service(NOWHERE) as (long, _),
        connected(short) as closed,
        connected(long) as kept,
    ):
        for client in (closed, kept):
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert closed.recv(1) == b""
        kept.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_connection_with_half_a_request_does_not_hold_up_the_end():
    with event_service(NOWHERE) as (url, process), connected(url) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nhost:")
        assert get(url, "/livez").status == 200
        began = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        assert time.monotonic() - began < 4
    assert "killed" not in process.output


def test_a_reply_that_is_being_read_slowly_is_sent_whole():
    """One that is larger than what the system keeps for a client that does not read."""
    with (
        mock_upstream("--users", "300", "--events-per-user", "100") as upstream,
        event_service(upstream) as (url, process),
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        client.sendall(b"GET /api/getEvents HTTP/1.1\r\nhost: a\r\n\r\n")
        found = client.recv(1024)
        process.send(signal.SIGTERM)
        time.sleep(1.6)  # longer than a connection without a request may hold up the end
        while part := client.recv(1 << 16):
            found += part
        assert process.wait() == 0

    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert len(body) == length > 2_000_000

"""Signals end the service gracefully, whenever they come and however many of them.

`SIGNAL_ROUNDS` says how many times each of the two kinds of rounds is tried; `SIGNAL_SEED` chooses
other moments.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from .processes import BIN, free_port, mock_upstream

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(900),
]
ROUNDS = int(os.environ.get("SIGNAL_ROUNDS", "2"))
SEED = os.environ.get("SIGNAL_SEED", "1")
# Seconds from the last reply to the end; the machine that runs the tests may be busy.
QUICK = 2.0
HANGS = 30.0
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
SEQUENCES = (
    *((INT,), (TERM,), (INT, INT), (TERM, TERM), (INT, TERM), (TERM, INT, TERM, INT)),
    *((HUP, TERM), (TERM, HUP), (HUP, INT), (INT, HUP, INT), (HUP, HUP, TERM)),
)


class Service:
    """`event-service serve` in a process group and a temporary folder of its own."""

    def __init__(self, upstream: str, folder: Path, *, workers: int) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")}
        with (folder.parent / f"{folder.name}.log").open("wb") as output:
            self.process = subprocess.Popen(
                [str(BIN / "event-service"), "serve"],
                env={
                    **inherited,
                    "TMPDIR": str(folder),
                    "EVENT_SERVICE_ENV": "testing",
                    "EVENT_SERVICE_PORT": str(self.port),
                    "EVENT_SERVICE_UPSTREAM_URL": upstream,
                    "EVENT_SERVICE_WORKERS": str(workers),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._log = Path(output.name)

    def until_it_hears(self) -> None:
        """Until its first instructions have run: before them only Python itself could hear."""
        status = Path(f"/proc/{self.process.pid}/status")
        while not caught(status.read_text()) & 1 << (TERM - 1):
            time.sleep(0.001)

    def until_it_answers(self) -> None:
        while not get(self.port, "/livez").startswith(b"HTTP/1.1 200"):
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def send(self, number: signal.Signals, *, to_group: bool) -> None:
        try:
            if to_group:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
        except ProcessLookupError:
            pass

    @property
    def log(self) -> str:
        return self._log.read_text()

    def members(self) -> list[int]:
        """Processes of its group that still run."""
        found = []
        for pid in psutil.pids():
            try:
                if os.getpgid(pid) == self.process.pid and psutil.Process(pid).is_running():
                    found.append(pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found


def caught(status: str) -> int:
    (line,) = [line for line in status.splitlines() if line.startswith("SigCgt:")]
    return int(line.split()[1], 16)


def get(port: int, path: str) -> bytes:
    """All of the reply, b"" if nobody listens. Raises ConnectionError if the reply is lost."""
    with socket.socket() as client:
        client.settimeout(HANGS)
        try:
            client.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return b""
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        found = b""
        while part := client.recv(65536):
            found += part
    if not found:
        raise ConnectionError(f"no reply to {path}")
    return found


@contextmanager
def running(upstream: str, folder: Path, *, workers: int) -> Iterator[Service]:
    service = Service(upstream, folder, workers=workers)
    try:
        yield service
    finally:
        for pid in service.members():
            os.kill(pid, signal.SIGKILL)
        service.process.wait()


def disturb(service: Service, chance: random.Random) -> None:
    to_group = chance.random() < 0.5
    for number in chance.choice(SEQUENCES):
        service.send(number, to_group=to_group)
        time.sleep(chance.choice([0, 0, 0.001, 0.02, 0.2]))


def assert_it_ended_well(service: Service, *, since: Callable[[], float]) -> None:
    code = service.process.wait(HANGS)
    took = time.monotonic() - since()
    assert (code, service.members()) == (0, []), service.log
    assert "Traceback" not in service.log
    assert "killed" not in service.log
    assert list(service.folder.iterdir()) == []
    assert took < QUICK + 1, service.log


@pytest.mark.parametrize("workers", [1, 4])
def test_signals_while_it_starts(tmp_path: Path, workers: int):
    def play(number: int) -> None:
        chance = random.Random(f"{SEED} start {workers} {number}")
        with running("http://127.0.0.1:9", tmp_path / str(number), workers=workers) as service:
            service.until_it_hears()
            time.sleep(chance.uniform(0, 1.5))
            disturb(service, chance)
            ended = time.monotonic()
            assert_it_ended_well(service, since=lambda: ended)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(play, range(ROUNDS)))


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_under_load_lose_nothing_in_flight(tmp_path: Path, workers: int):
    """Each client asks again and again, on new connections, until nobody listens."""

    def play(number: int) -> None:
        chance = random.Random(f"{SEED} load {workers} {number}")
        last_reply = 0.0
        replies: list[bytes] = []

        def ask() -> None:
            nonlocal last_reply
            while reply := get(service.port, "/api/getEventsByUserId/1"):
                replies.append(reply)
                last_reply = time.monotonic()

        with running(upstream, tmp_path / str(number), workers=workers) as service:
            service.until_it_answers()
            with ThreadPoolExecutor(8) as clients:
                asking = [clients.submit(ask) for _ in range(8)]
                time.sleep(chance.uniform(0, 0.8))
                disturb(service, chance)
                for each in asking:
                    each.result()
            assert_it_ended_well(service, since=lambda: last_reply)
        assert {reply[:12] for reply in replies} <= {b"HTTP/1.1 200"}

    with mock_upstream("--event-delay", "0.2") as upstream, ThreadPoolExecutor(2) as threads:
        list(threads.map(play, range(ROUNDS)))


def test_of_two_that_start_at_the_same_instant_one_says_that_it_cannot(tmp_path: Path):
    port = str(free_port())
    for count in ("1", "2"):
        pair = [
            subprocess.Popen(
                [str(BIN / "event-service"), "serve"],
                env={
                    **os.environ,
                    "EVENT_SERVICE_ENV": "testing",
                    "EVENT_SERVICE_PORT": port,
                    "EVENT_SERVICE_UPSTREAM_URL": "http://127.0.0.1:9",
                    "EVENT_SERVICE_WORKERS": count,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(2)
        ]
        done = threading.Event()
        codes: list[int] = []

        def watch(process: subprocess.Popen[str], done=done, codes=codes) -> None:
            codes.append(process.wait())
            done.set()

        watchers = [threading.Thread(target=watch, args=(process,)) for process in pair]
        for watcher in watchers:
            watcher.start()
        assert done.wait(HANGS)
        assert codes == [1]
        for process in pair:
            process.terminate()
        for watcher in watchers:
            watcher.join(HANGS)
        outputs = [process.communicate()[0] for process in pair]
        assert sorted(codes) == [0, 1]
        assert any(
            output == f"Cannot listen on 127.0.0.1 port {port} (Address already in use); "
            "choose another with EVENT_SERVICE_PORT.\n"
            for output in outputs
        )


@pytest.mark.parametrize("number", [INT, TERM, HUP])
def test_dev_ends_silently_on_a_signal_at_any_time_and_leaves_no_child(number: int):
    chance = random.Random(f"{SEED} dev {number}")
    delays = [0, *(chance.uniform(0, 1.2) for _ in range(min(ROUNDS, 15)))]
    with ThreadPoolExecutor(3) as threads:
        for code, output in threads.map(lambda delay: told_twice("dev", number, delay), delays):
            assert (code, "Traceback" in output) == (0, False), output


@pytest.mark.parametrize("number", [INT, TERM])
def test_the_mock_ends_well_however_often_it_is_told(number: int):
    code, output = told_twice("mock-upstream", number, 0.2)
    assert code == 0
    assert output.startswith("mock upstream listening on")
    assert output.count("\n") == 1


@pytest.mark.parametrize("delay", [0, 0.05, 0.15, 0.5])
def test_an_interrupted_command_prints_no_traceback_of_its_imports(delay: float):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = subprocess.Popen(
            [
                *(str(BIN / "event-service"), "check-upstream"),
                *("--upstream-url", f"http://127.0.0.1:{silent.getsockname()[1]}"),
            ],
            env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        maps = Path(f"/proc/{process.pid}/maps")
        while "pydantic_core" not in maps.read_text():
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(INT)
        output, _ = process.communicate(timeout=HANGS)

    assert process.returncode in {-INT, 128 + INT}
    assert output.strip() in {"", "Aborted."}


def told_twice(program: str, number: int, delay: float) -> tuple[int, str]:
    """Exit code and output of a program that is told to end, and told again a moment later.

    The output ends when nobody is left who could add to it.
    """
    # Coverage hears SIGTERM before our first instruction, and would be taken for us.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    upstream = str(free_port())
    command = ["event-service", "dev"] if program == "dev" else [program, "--port", upstream]
    process = subprocess.Popen(
        [str(BIN / command[0]), *command[1:]],
        env={
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "EVENT_SERVICE_PORT": str(free_port()),
            "EVENT_SERVICE_UPSTREAM_URL": f"http://127.0.0.1:{upstream}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    status = Path(f"/proc/{process.pid}/status")
    while not caught(status.read_text()) & 1 << (TERM - 1):
        time.sleep(0.001)
    time.sleep(delay)
    for pause in (0.02, 0.1, 0.1, 0.1, 0.1, 0):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        time.sleep(pause)
    output, _ = process.communicate(timeout=HANGS)
    return process.returncode, output

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

START_TIMEOUT = 30.0


@contextmanager
def running(mock_options: Sequence[str], settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Run the service in front of the mock upstream on free ports; yields their addresses."""
    port, upstream_port = free_port(), free_port()
    upstream = f"http://127.0.0.1:{upstream_port}"
    # Settings from the environment must not change the demo.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")}
    environ |= {
        "EVENT_SERVICE_ENV": "testing",
        "EVENT_SERVICE_PORT": str(port),
        "EVENT_SERVICE_UPSTREAM_URL": upstream,
        **{f"EVENT_SERVICE_{name}": value for name, value in settings.items()},
    }
    mock = ["mock_upstream", "--port", str(upstream_port), *mock_options]
    with (
        tempfile.TemporaryFile() as log,
        _program(mock, environ, log) as mock_process,
        _program(["event_service", "serve"], environ, log) as service_process,
    ):
        for url, process in (
            (f"{upstream}/healthz", mock_process),
            (f"http://127.0.0.1:{port}/livez", service_process),
        ):
            _wait_for(url, process, log)
        yield f"http://127.0.0.1:{port}", upstream


@contextmanager
def _program(
    command: Sequence[str], environ: Mapping[str, str], log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environ,
        stdout=log,
        stderr=log,
        # Ctrl-C must reach only this process, which stops its children.
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    give_up = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < give_up:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    log.seek(0)
    sys.exit(f"nothing answers at {url}; the log says:\n{log.read().decode()}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

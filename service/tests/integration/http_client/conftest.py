import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Callable[..., int]]:
    """`run(command)` starts a server and returns once it listens on the port that it returns.

    PORT in the command, and in the text of `files`, stands for that port, and DIR for a folder
    that holds these files.
    """
    with contextlib.ExitStack() as stack:

        def run(*command: str, files: dict[str, str] | None = None) -> int:
            port = free_port()
            folder = tmp_path_factory.mktemp("server")
            # Some servers give up root's rights, and must still read what is theirs.
            folder.chmod(0o777)

            def filled(text: str) -> str:
                return text.replace("PORT", str(port)).replace("DIR", str(folder))

            for name, text in (files or {}).items():
                (folder / name).write_text(filled(text))
            stack.enter_context(running([filled(part) for part in command], port, folder))
            return port

        yield run


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as process,
    ):
        try:
            while process.poll() is None and not listens(port):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)
            assert process.returncode is None, log.read_text(errors="replace")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

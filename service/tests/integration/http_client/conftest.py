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


class Certificates:
    """An authority, and what it signed; all files are PEM."""

    def __init__(self, openssl: Path, folder: Path) -> None:
        self.ca = folder / "ca.pem"
        self._openssl = openssl
        self._folder = folder
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority",
        )  # fmt: skip
        self.server, self.server_key = self.sign("server", "DNS:localhost,IP:127.0.0.1")
        self.other, self.other_key = self.sign("other", "DNS:other.example")
        self.client, self.client_key = self.sign("client", "DNS:client")

    def sign(self, name: str, names: str) -> tuple[Path, Path]:
        self._run(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={names}",
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-copy_extensions", "copy", "-days", "2", "-out", f"{name}.pem",
        )  # fmt: skip
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def encrypt(self, key: Path) -> Path:
        encrypted = key.with_suffix(".encrypted")
        self._run("ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(encrypted))
        return encrypted

    def _run(self, *arguments: str) -> None:
        command = [str(self._openssl), *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(needs, tmp_path_factory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    return Certificates(needs("openssl"), folder)

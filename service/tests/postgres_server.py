"""A PostgreSQL server of the tests' own, on a free port of loopback, with its data in a folder."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

START_TIMEOUT = 30.0
# The server refuses to run as root.
USER = "nobody" if os.geteuid() == 0 else None


class PostgresServer:
    def __init__(self, programs: Path, folder: Path) -> None:
        """`programs` is the folder of initdb and postgres; `folder` must be of their user."""
        self._programs = programs
        self._data = folder / "data"
        self._log = folder / "log"
        self._sockets = folder
        self.port = _free_port()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--username=tests", "--no-sync", "--encoding=UTF8")

    @property
    def pid(self) -> int:
        """Of the running server; its children serve the connections."""
        if self._process is None:
            raise ValueError("it does not run")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """The URL of a new, empty database, which takes a quarter of a second."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def create_schema(self) -> str:
        """The URL of a new, empty schema: as good as a database for whoever names no schema."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url()}?options=-csearch_path%3D{name}"

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._sockets),
            "max_connections": "60",
            # What transactions must not rely on.
            "synchronous_commit": "off",
            # What a test stops is never a machine, so nothing needs to reach a disk.
            "fsync": "off",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    self._data,
                    *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()),
                ],
                user=USER,
                cwd=self._sockets,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError(f"no PostgreSQL:\n{self._log.read_text()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends its clients and stops; SIGQUIT is a crash, to be recovered from."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_TIMEOUT)
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._data, *arguments],
            user=USER,
            cwd=self._sockets,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresServer]:
    """A running server; what it holds goes with it."""
    # Short: the path of a socket may have about a hundred bytes. In no folder of the tests' own,
    # which the server's user could not enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if USER is not None:
        shutil.chown(folder, USER)
    try:
        server = PostgresServer(programs, folder)
        server.start()
        try:
            yield server
        finally:
            # Nobody needs what it holds any more.
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


def find_programs() -> Path | None:
    """The folder of initdb and postgres, which Debian keeps out of the PATH."""
    folders = [os.environ.get("PATH", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    program = shutil.which("initdb", path=os.pathsep.join(folders))
    return None if program is None else Path(program).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

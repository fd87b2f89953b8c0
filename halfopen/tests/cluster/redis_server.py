"""A `redis-server` of the test's own on a free port, to be killed and paused."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import redis


class RedisServer:
    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [
            shutil.which("redis-server") or "redis-server",
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
            *("--save", "", "--appendonly", "no", "--logfile", str(folder / "redis.log")),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)
        with self._client() as client:
            while True:
                try:
                    client.ping()
                except redis.exceptions.ConnectionError:
                    assert self._process.poll() is None, "redis-server ended; see redis.log"
                    time.sleep(0.01)
                else:
                    return

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def follow(self, primary: "RedisServer") -> None:
        """Become its replica, and have all that it has."""
        with self._client() as client:
            client.replicaof("127.0.0.1", primary.port)
            while client.info("replication")["master_link_status"] != "up":
                time.sleep(0.01)

    def lag(self, primary: "RedisServer") -> None:
        """Have all that it has by now, and hear of nothing from now on."""
        with self._client() as client:
            while self._offset("slave_repl_offset") < primary._offset("master_repl_offset"):
                time.sleep(0.01)
            client.replicaof("127.0.0.1", free_port())

    def _offset(self, whose: str) -> int:
        with self._client() as client:
            offset: int = client.info("replication")[whose]
            return offset

    def promote(self) -> None:
        with self._client() as client:
            client.replicaof("NO", "ONE")

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=None)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

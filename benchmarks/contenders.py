"""The servers that are compared: how each is started, and what it needs to be installed."""

import http.client
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.processes import Process, free_port

HERE = Path(__file__).parent
FASTIFY = HERE / "peers" / "fastify"
FASTAPI = HERE / "peers" / "fastapi"
FASTAPI_BIN = FASTAPI / ".venv" / "bin"
OUR_BIN = Path(sys.executable).parent
OPS_TOKEN = "token-of-the-benchmark"

# All is pinned with its hash, and nothing is resolved.
INSTALL_FASTIFY = ("npm", "ci", "--no-audit", "--no-fund", "--prefix", str(FASTIFY))
FASTAPI_PIP = (str(FASTAPI_BIN / "python"), "-m", "pip", "--disable-pip-version-check")
PINNED = ("--no-deps", "--only-binary=:all:", "--require-hashes")
INSTALL_FASTAPI = (
    (sys.executable, "-m", "venv", "--clear", str(FASTAPI / ".venv")),
    (*FASTAPI_PIP, "install", *PINNED, "-r", f"{FASTAPI}/requirements.txt"),
    (*FASTAPI_PIP, "check"),
)


@dataclass(frozen=True)
class Tuning:
    """What a scenario asks of every contender that has such a setting."""

    cooldown: float = 10.0  # seconds
    in_flight: int | None = None  # room for so many requests and upstream calls at once
    outbox: bool = False  # of those that can accept events for later


@dataclass(frozen=True)
class Contender:
    name: str
    title: str
    command: tuple[str | Path, ...]
    needs: Path
    install: tuple[tuple[str, ...], ...]
    # What it can do: pass a call on, stand in front of an events API or a database, accept events
    # for later.
    able: tuple[str, ...] = ("pass-through", "http")
    whole: bool = True  # it validates, logs and counts, which is checked

    def environment(self, port: int, upstream: str, tuning: Tuning) -> dict[str, str]:
        return {
            "NODE_ENV": "production",
            "PORT": str(port),
            "UVICORN_PORT": str(port),
            "UPSTREAM_URL": upstream,
            "BREAKER_COOLDOWN": str(tuning.cooldown),
        }


class EventService(Contender):
    """Production's defaults; limits are raised only where a scenario asks for more at once."""

    def environment(self, port: int, upstream: str, tuning: Tuning) -> dict[str, str]:
        settings = {
            "ENV": "production",
            "PORT": str(port),
            "UPSTREAM_URL": upstream,
            "OPS_TOKEN": OPS_TOKEN,
            "BREAKER_COOLDOWN": f"{tuning.cooldown:g}",
        }
        if tuning.in_flight:
            settings["MAX_IN_FLIGHT"] = str(tuning.in_flight)
            settings["UPSTREAM_CONCURRENCY"] = str(tuning.in_flight)
        if tuning.outbox:
            settings["OUTBOX_URL"] = "sqlite:///outbox.db"  # in the folder of this very server
            settings["OUTBOX_LIMIT"] = "10000000"
        return {f"EVENT_SERVICE_{name}": value for name, value in settings.items()}


def _fastify(script: str) -> tuple[str | Path, ...]:
    return ("node", FASTIFY / script)


def _fastapi(module: str) -> tuple[str | Path, ...]:
    options = "--loop uvloop --http httptools --no-access-log --log-level warning"
    return (FASTAPI_BIN / "uvicorn", "--app-dir", FASTAPI, *options.split(), f"{module}:app")


STRONGEST = "fastify-undici"  # of the others: every run includes it
NODE_MODULES = FASTIFY / "node_modules"
OURS = EventService(
    "ours",
    "Event Service",
    (OUR_BIN / "event-service", "serve"),
    OUR_BIN / "event-service",
    (("make", "-C", str(HERE.parent), "install"),),
    ("pass-through", "http", "sql", "outbox"),
)
# The limit that a user sees: it passes a call on, and does nothing else.
NGINX = Contender(
    "nginx",
    "nginx",
    (sys.executable, HERE / "nginx_proxy.py"),
    Path(sys.executable),
    (),
    ("pass-through",),
    whole=False,
)
CONTENDERS = (
    OURS,
    Contender(
        STRONGEST,
        "Fastify + undici",
        _fastify("undici.js"),
        NODE_MODULES,
        (INSTALL_FASTIFY,),
    ),
    Contender(
        "fastify-fetch",
        "Fastify + fetch",
        _fastify("fetch.js"),
        NODE_MODULES,
        (INSTALL_FASTIFY,),
    ),
    Contender(
        "fastapi-httpx",
        "FastAPI + httpx",
        _fastapi("httpx_peer"),
        FASTAPI_BIN / "uvicorn",
        INSTALL_FASTAPI,
    ),
    Contender(
        "fastapi-aiohttp",
        "FastAPI + aiohttp",
        _fastapi("aiohttp_peer"),
        FASTAPI_BIN / "uvicorn",
        INSTALL_FASTAPI,
    ),
    Contender(
        "fastapi-sqlalchemy",
        "FastAPI + SQLAlchemy",
        _fastapi("sqlalchemy_peer"),
        FASTAPI_BIN / "uvicorn",
        INSTALL_FASTAPI,
        ("sql",),
    ),
    NGINX,
)


class DidNotStart(Exception):
    pass


@dataclass
class Server:
    """A running contender. `start_seconds`: from its start to its first 200."""

    contender: Contender
    process: Process
    port: int
    start_seconds: float = 0.0
    logged: int = 0  # requests to the API that it has answered: each must have a log line
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"Authorization": f"Bearer {OPS_TOKEN}"}
    )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body and json.dumps(body), headers)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        self.logged += path.startswith("/api/")
        return reply.status, content


def start(
    contender: Contender, *, upstream: str, core: int, tuning: Tuning, folder: Path
) -> Server:
    """Start a contender and wait for its first 200. Raises DidNotStart."""
    port = free_port()
    began = time.monotonic()
    process = Process(
        contender.command,
        core=core,
        environment=contender.environment(port, upstream, tuning),
        folder=folder,
    )
    server = Server(contender, process, port)
    try:
        while time.monotonic() < began + 20 and process.alive:
            try:
                if server.request("GET", "/api/getUsers")[0] == 200:
                    server.start_seconds = time.monotonic() - began
                    return server
            except OSError:
                pass
            time.sleep(0.002)
        process.stop()
        words = process.last_words.decode(errors="replace")
        raise DidNotStart(f"{contender.title} did not start:\n{words}")
    except BaseException:
        process.stop()
        raise

"""Starts ordinary upstreams, as their users do, on free ports and with data of their own."""

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .processes import START_TIMEOUT, Process, free_port

FOLDER = Path(__file__).parent / "upstreams"
MODULES = "tests/upstreams/node_modules"
REST_PATHS = {
    "getUsers": "/users",
    "getUserById": "/users/{id}",
    "getEvents": "/events",
    "getEventById": "/events/{id}",
    "addEvent": "/events",
}
BY_USER = {"getEventsByUserId": "/events?userId={id}"}

Find = Callable[[str], Path]
Command = Callable[[Find, int, Path], list[str]]


class Upstream(NamedTuple):
    """`command`, given `needs`, a port and an empty folder, is what to run; all REST paths."""

    name: str
    command: Command


@contextmanager
def running(upstream: Upstream, needs: Find, folder: Path) -> Iterator[str]:
    """The upstream; yields its address. Skips the test where it is not installed."""
    port = free_port()
    process = Process(*upstream.command(needs, port, folder))
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(process, f"{url}/users")
        yield url
    finally:
        process.stop()


def _wait_for(process: Process, url: str) -> None:
    give_up = time.monotonic() + START_TIMEOUT
    while process.running and time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nothing answers at {url}; the program said:\n{process.output}")


def _json_server_0(needs: Find, port: int, folder: Path) -> list[str]:
    data = shutil.copy(FOLDER / "numbers.json", folder / "db.json")
    program = needs(MODULES) / "json-server-0/lib/cli/bin.js"
    return [str(needs("node")), str(program), "--quiet", "--host=127.0.0.1", f"--port={port}", data]


def _json_server_1(needs: Find, port: int, folder: Path) -> list[str]:
    data = shutil.copy(FOLDER / "strings.json", folder / "db.json")
    program = needs(MODULES) / "json-server-1/lib/bin.js"
    return [str(needs("node")), str(program), "--host=127.0.0.1", f"--port={port}", data]


def _prism(needs: Find, port: int, _folder: Path) -> list[str]:
    program = needs(MODULES) / "@stoplight/prism-cli/dist/index.js"
    document = FOLDER / "openapi.yaml"
    options = ["mock", "--verboseLevel=silent", "--host=127.0.0.1", f"--port={port}"]
    return [str(needs("node")), str(program), *options, str(document)]


def _mountebank(needs: Find, port: int, folder: Path) -> list[str]:
    config = folder / "imposters.json"
    config.write_text(json.dumps({"imposters": [_imposter(port)]}))
    program = needs(MODULES) / "mountebank/bin/mb"
    options = [
        "--loglevel",
        "error",
        "--configfile",
        str(config),
        "--pidfile",
        str(folder / "pid"),
        "--nologfile",
    ]
    own = ["--port", str(free_port()), "--host", "127.0.0.1"]
    return [str(needs("node")), str(program), "start", *options, *own]


def _imposter(port: int) -> dict[str, object]:
    """Answers each path of strings.json, and every write with a number as id."""
    data = json.loads((FOLDER / "strings.json").read_text())
    added: dict[str, object] = {"success": True, "id": 5}
    stubs = [_stub({"method": "POST", "path": "/events"}, added)]
    for user in data["users"]:
        own = [event for event in data["events"] if event["userId"] == user["id"]]
        stubs.append(_stub({"path": "/events", "query": {"userId": user["id"]}}, own))
    for kind, items in data.items():
        stubs += [_stub({"path": f"/{kind}/{item['id']}"}, item) for item in items]
        stubs.append(_stub({"path": f"/{kind}"}, items))
    nothing = {"statusCode": 404, "body": "nothing here"}
    return {
        "port": port,
        "host": "127.0.0.1",
        "protocol": "http",
        "stubs": stubs,
        "defaultResponse": nothing,
    }


def _stub(request: dict[str, object], body: object) -> dict[str, object]:
    responses = [{"is": {"statusCode": 200, "body": body}}]
    return {"predicates": [{"equals": request}], "responses": responses}


def _careful(needs: Find, port: int, _folder: Path) -> list[str]:
    needs(MODULES)
    return [str(needs("node")), str(FOLDER / "careful.js"), str(port)]


def _uvicorn(_needs: Find, port: int, _folder: Path) -> list[str]:
    return ["uvicorn", "--app-dir", str(FOLDER), "--port", str(port), "typed:app"]


def _gunicorn(_needs: Find, port: int, folder: Path) -> list[str]:
    options = ["--chdir", str(FOLDER), "--worker-tmp-dir", str(folder), "--no-control-socket"]
    return ["gunicorn", *options, "--bind", f"127.0.0.1:{port}", "blocking:app"]


def _nginx(needs: Find, port: int, folder: Path) -> list[str]:
    data = json.loads((FOLDER / "strings.json").read_text())
    for kind, items in data.items():
        (folder / "files" / kind).mkdir(parents=True)
        for item in items:
            (folder / "files" / kind / item["id"]).write_text(json.dumps(item))
        (folder / "files" / kind / "all").write_text(json.dumps(items))
    for user in data["users"]:
        own = [event for event in data["events"] if event["userId"] == user["id"]]
        (folder / "files/events" / f"of-{user['id']}").write_text(json.dumps(own))
    config = folder / "nginx.conf"
    config.write_text((FOLDER / "nginx.conf").read_text().format(folder=folder, port=port))
    # Root's workers would else be another user, who may not read root's folders.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    return [str(needs("nginx")), "-e", "stderr", "-c", str(config), *user]


UPSTREAMS = [
    Upstream("json-server 0.17", _json_server_0),
    Upstream("json-server 1.0 beta", _json_server_1),
    Upstream("Prism", _prism),
    Upstream("mountebank", _mountebank),
    Upstream("Express with express-idempotency", _careful),
    Upstream("FastAPI under uvicorn", _uvicorn),
    Upstream("gunicorn, sync workers", _gunicorn),
    Upstream("nginx", _nginx),
]

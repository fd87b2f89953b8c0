"""Requests to the ASGI app within one process, its HTTP client replaced by ready replies."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias
from unittest.mock import patch

import event_service.app
import event_service.wiring.sources
from benchmarks import data
from event_service.routes.users import EVENTS_BY_USER_ID
from event_service.settings import Settings

# Returns how many there were of what it is measured for.
Work: TypeAlias = Callable[[], Awaitable[int]]

REQUESTS = 2560  # in one round of a row
AT_ONCE = 64
PASS_THROUGH = "GET, a user without events"
TEN_EVENTS = "GET, a user with ten events"
BY_USER = EVENTS_BY_USER_ID.partition("{")[0]
ADD_EVENT = "/api/addEvent"
NEW_EVENT = json.dumps(data.NEW_EVENT).encode()
BASE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "server": ("127.0.0.1", 3000),
    "client": ("127.0.0.1", 50000),
    "scheme": "http",
    "root_path": "",
    "query_string": b"",
}
HOST = (b"host", b"127.0.0.1:3000")
JSON = (b"content-type", b"application/json")
USERS = {size: data.encode(data.user(f"KEY-{size}")) for size in ("0", "10")}
EVENT = data.encode(data.event("KEY-PLACE"))


def scope(path: str, body: bytes = b"") -> dict:
    headers = [HOST, JSON, (b"content-length", b"%d" % len(body))] if body else [HOST]
    method = "POST" if body else "GET"
    return BASE | {"method": method, "path": path, "raw_path": path.encode(), "headers": headers}


class Client:
    """Stands in for the HTTP client: replies as the fast upstream that refuses events."""

    async def send(self, method: str, path: str, **_: object) -> "Reply":
        await asyncio.sleep(0)  # no reply comes in the turn of the loop that asked for it
        if method == "POST":
            return Reply(503, data.encode(data.REFUSED))
        path, _, last = path.rpartition("-")
        key = path.rpartition("/")[2]
        if "/getUserById/" in path:
            return Reply(200, USERS[last].replace("KEY", key))
        return Reply(200, EVENT.replace("KEY", key).replace("PLACE", last))

    async def close(self) -> None:
        pass


class Reply:
    complete = True

    def __init__(self, status: int, body: str):
        self.status = status
        self.body = body.encode()

    def header(self, _name: bytes) -> str:
        return ""

    def discard(self) -> None:
        pass

    async def read(self) -> bytes:
        return self.body


class Unanswering:
    """A source of events that never says anything."""

    async def user(self, *_: object, **__: object) -> None:
        await asyncio.get_running_loop().create_future()

    users = events = event = add_event = user


async def request(app, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request, in a task of its own as the server does, and return its reply."""
    reply = []
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict:
        return unread.pop() if unread else await asyncio.get_running_loop().create_future()

    async def send(message: dict) -> None:
        reply.append(message)

    await asyncio.create_task(app(scope(path, body), receive, send))
    return reply[0]["status"], reply[1]["body"]


def whole(app, path: str, wanted: tuple[int, bytes], body: bytes = b"") -> Work:
    """Requests of clients that always wait for a reply.

    `wanted`: the status of every reply, and what its body contains.
    """
    numbers = itertools.count()

    async def client() -> None:
        for _ in range(REQUESTS // AT_ONCE):
            status, content = await request(app, path.format(next(numbers)), body)
            if status != wanted[0] or wanted[1] not in content:
                raise RuntimeError(f"{path}: {status} {content[:200]!r}")

    async def work() -> int:
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        return REQUESTS

    return work


async def nothing(*_: object) -> None:
    pass


async def answer(_scope: object, _receive: object, send: Callable[[dict], Awaitable]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def whole_requests(settings: Settings) -> AsyncIterator[dict[str, Work]]:
    """The work of each row, by its title."""
    full_after_one = settings.model_copy(
        update={"max_in_flight": 1, "upstream_timeout": settings.request_deadline}
    )
    with patch.object(event_service.wiring.sources, "build_client", lambda *_, **__: Client()):
        app = event_service.app.create_app(settings)
    full = event_service.app.create_app(full_after_one, source=Unanswering())
    for _ in range(settings.breaker_failures):
        await request(app, ADD_EVENT, NEW_EVENT)
    unending = full(scope(BY_USER + "u0-0"), asyncio.Event().wait, nothing)
    held = asyncio.create_task(unending)
    try:
        yield {
            "an app that answers at once (in each below)": whole(answer, "/", (200, b"")),
            "GET /livez": whole(app, "/livez", (200, b"")),
            PASS_THROUGH: whole(app, BY_USER + "u{}-0", (200, b"[]")),
            TEN_EVENTS: whole(app, BY_USER + "u{}-10", (200, b"-9")),
            "POST, breaker open": whole(app, ADD_EVENT, (503, b"circuit-open"), NEW_EVENT),
            "GET, load shed": whole(full, BY_USER + "u{}-0", (503, b"overloaded")),
        }
    finally:
        held.cancel()

"""The events API with exact delays for tens of thousands of calls at once, as a process.

It speaks just enough HTTP/1.1 for clients that keep connections and do not pipeline.
`POST /control/down` makes every call fail with 503, `/control/up` ends that, and
`GET /control/calls` lists when each call came (`time.monotonic()`, which all processes share).
"""

import argparse
import asyncio
import heapq
import re
import time
from functools import lru_cache

import uvloop

from benchmarks import data
from benchmarks.linger import close_at_once
from benchmarks.timer import Timer

CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def reply(status: str, body: object) -> bytes:
    content = data.encode(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


UNAVAILABLE = reply("503 Service Unavailable", data.REFUSED)
NOT_FOUND = reply("404 Not Found", {"message": "not found"})
FIXED = {
    "/getUsers": reply("200 OK", data.USERS),
    "/getEvents": reply("200 OK", data.EVENTS),
    "/addEvent": reply("200 OK", data.ADDED),
}


@lru_cache(maxsize=4096)
def answer(path: str) -> bytes:
    if path in FIXED:
        return FIXED[path]
    operation, _, key = path.rpartition("/")
    try:
        if operation == "/getUserById":
            return reply("200 OK", data.user(key))
        if operation == "/getEventById":
            return reply("200 OK", data.event(key))
    except ValueError:
        pass
    return NOT_FOUND


class Upstream:
    def __init__(self, user_delay: float, event_delay: float):
        self.user_delay = user_delay
        self.event_delay = event_delay
        self.down = False
        self.calls: list[float] = []
        self.waiting: list[tuple[float, int, asyncio.Transport, bytes]] = []
        self.timer = Timer()

    def take(self, path: str, transport: asyncio.Transport) -> None:
        if path.startswith("/control/"):
            transport.write(self.control(path))
            return
        now = time.monotonic()
        self.calls.append(now)
        if self.down:
            transport.write(UNAVAILABLE)
            return
        delay = 0.0
        if path.startswith("/getEventById/"):
            delay = self.event_delay
        elif path.startswith("/getUserById/"):
            delay = self.user_delay
        if delay:
            self.hold(now + delay, transport, answer(path))
        else:
            transport.write(answer(path))

    def hold(self, due: float, transport: asyncio.Transport, content: bytes) -> None:
        entry = (due, len(self.calls), transport, content)  # the count breaks ties
        heapq.heappush(self.waiting, entry)
        if self.waiting[0] is entry:
            self.timer.fire_at(due)

    def release(self) -> None:
        self.timer.drain()
        now = time.monotonic()
        while self.waiting and self.waiting[0][0] <= now:
            _, _, transport, content = heapq.heappop(self.waiting)
            if not transport.is_closing():  # its caller may have given up
                transport.write(content)
        if self.waiting:
            self.timer.fire_at(self.waiting[0][0])

    def control(self, path: str) -> bytes:
        if path == "/control/calls":
            calls, self.calls = self.calls, []
            return reply("200 OK", calls)
        self.down = path == "/control/down"
        return reply("200 OK", {"down": self.down})


class Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream):
        self.upstream = upstream
        self.pending = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        close_at_once(transport)

    def data_received(self, content: bytes) -> None:
        content = self.pending + content
        head, end, body = content.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            self.pending = content
            return
        self.pending = b""
        self.upstream.take(head.split(b" ", 2)[1].decode(), self.transport)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user-delay", type=float, default=0.0)
    parser.add_argument("--event-delay", type=float, default=0.0)
    options = parser.parse_args()
    upstream = Upstream(options.user_delay, options.event_delay)
    loop = asyncio.get_running_loop()
    loop.add_reader(upstream.timer.fileno(), upstream.release)
    server = await loop.create_server(
        lambda: Connection(upstream), "127.0.0.1", options.port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

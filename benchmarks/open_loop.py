"""A load generator that does not wait for replies before it sends the next request, as a process.

Two shapes, from a JSON specification in the first argument:

- `rate`: requests fall due at a constant rate. Each one's latency counts from the moment it was
  due, whether or not a connection was free then: a slow server cannot slow its own examination
  (no coordinated omission).
- `in_flight`: so many connections, each with always one request under way; their starts are spread
  over the first second. Latency counts from sending.

Requests unanswered at the end are reported with status 0 and the time they have waited, a
connection that broke with status -1. Samples go to standard output as JSON.
"""

import asyncio
import gc
import json
import re
import sys
import time
from collections import deque
from itertools import count

import uvloop

from benchmarks.linger import close_at_once
from benchmarks.timer import Timer

CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
KEY = b"{key}"


class Samples:
    def __init__(self) -> None:
        self.due: list[float] = []
        self.latency_ms: list[float] = []
        self.status: list[int] = []

    def add(self, due: float, status: int) -> None:
        self.due.append(due)
        self.latency_ms.append((time.monotonic() - due) * 1000)
        self.status.append(status)


class Connection(asyncio.Protocol):
    """One request at a time. `on_free` is called after each reply and when it is connected."""

    def __init__(self, samples: Samples, on_free):
        self.samples = samples
        self.on_free = on_free
        self.due = None
        self.received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        close_at_once(transport)
        self.on_free(self)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, content: bytes) -> None:
        if self.due is None:  # a farewell on an idle connection, such as 408
            self.transport.close()
            return
        content = self.received + content
        head, end, body = content.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        if length:
            complete = bool(end) and len(body) >= int(length[1])
        else:
            complete = body.endswith(b"0\r\n\r\n")
        if not complete:
            self.received = content
            return
        self.received = b""
        due, self.due = self.due, None
        self.samples.add(due, int(head[9:12]))
        self.on_free(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self.due is not None:
            self.samples.add(self.due, -1)
            self.due = None


class Load:
    def __init__(self, specification: dict):
        self.port = specification["port"]
        self.connections = specification["connections"]
        self.seconds = specification["seconds"]
        self.requests = self._requests(specification["requests"])
        self.samples = Samples()
        self.opened: list[Connection] = []
        self.connecting = 0

    def _requests(self, kinds: list[dict]):
        """Every request to come, each kind in turn, with a key nobody used before."""
        templates = []
        for kind in kinds:
            body = json.dumps(kind["body"]) if kind.get("body") else ""
            head = f"{kind['method']} {kind['path']} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            if body:
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            templates.append(f"{head}\r\n{body}".encode())
        prefix = b"%x" % time.monotonic_ns()
        for number in count():
            yield templates[number % len(templates)].replace(KEY, b"%bn%d" % (prefix, number))

    async def open(self, on_free) -> None:
        self.connecting += 1
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self.samples, on_free), "127.0.0.1", self.port
            )
            self.opened.append(connection)
        finally:
            self.connecting -= 1

    async def open_all(self, total: int, on_free) -> None:
        for first in range(0, total, 100):
            batch = range(first, min(first + 100, total))
            await asyncio.gather(*[self.open(on_free) for _ in batch])

    async def at_rate(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        free: list[Connection] = []
        waiting: deque[float] = deque()
        opening: set[asyncio.Task] = set()

        def on_free(connection: Connection) -> None:
            if waiting:
                connection.send(next(self.requests), waiting.popleft())
            else:
                free.append(connection)

        await self.open_all(min(64, self.connections), on_free)
        started = time.monotonic()
        total = int(self.seconds * rate)
        sent = 0

        def send_due() -> None:
            nonlocal sent
            timer.drain()
            reached = min(total, int((time.monotonic() - started) * rate) + 1)
            for number in range(sent, reached):
                due = started + number / rate
                while free and free[-1].transport.is_closing():
                    free.pop()
                if free:
                    free.pop().send(next(self.requests), due)
                    continue
                waiting.append(due)
                if len(self.opened) + self.connecting < self.connections:
                    task = loop.create_task(self.open(on_free))
                    opening.add(task)
                    task.add_done_callback(opening.discard)
            sent = reached

        timer = Timer()
        loop.add_reader(timer.fileno(), send_due)
        timer.fire_every(max(1 / rate, 1e-4))
        await self.until_done(lambda: len(self.samples.due) >= total, started)
        loop.remove_reader(timer.fileno())
        for due in waiting:
            self.samples.add(due, 0)

    async def in_flight(self) -> None:
        running = True

        def on_free(connection: Connection) -> None:
            if running and connection in started:
                connection.send(next(self.requests), time.monotonic())

        started: set[Connection] = set()
        await self.open_all(self.connections, on_free)
        begin = time.monotonic()
        while len(started) < self.connections:
            await asyncio.sleep(0.001)
            reached = min(1.0, time.monotonic() - begin) * self.connections
            for connection in self.opened[len(started) : int(reached)]:
                started.add(connection)
                connection.send(next(self.requests), time.monotonic())
        await asyncio.sleep(self.seconds)
        running = False
        idle = lambda: all(connection.due is None for connection in self.opened)  # noqa: E731
        await self.until_done(idle, begin + 1)

    async def until_done(self, done, started: float) -> None:
        """Wait for the end, and for at most 5 s more for replies still under way."""
        while time.monotonic() < started + self.seconds + 5:
            if done():
                return
            await asyncio.sleep(0.02)
        for connection in self.opened:
            if connection.due is not None:
                self.samples.add(connection.due, 0)
                connection.due = None


async def main() -> None:
    specification = json.loads(sys.argv[1])
    load = Load(specification)
    gc.disable()
    if "rate" in specification:
        await load.at_rate(specification["rate"])
    else:
        await load.in_flight()
    json.dump(vars(load.samples), sys.stdout)


if __name__ == "__main__":
    uvloop.run(main())

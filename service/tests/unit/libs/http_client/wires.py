"""Both ends of a connection for tests: one without sockets, one of bytes over real ones."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from event_service.libs.http_client import HttpClient, parse_base_url
from event_service.libs.http_client.connection import Connection

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FakeTransport(asyncio.Transport):
    """Keeps what is written; a connection is fed by calling its methods."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.aborted = False
        self.reading = True
        self.unsent = 0

    def write(self, data):
        self.written += bytes(data)

    def abort(self):
        self.aborted = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def get_write_buffer_size(self):
        return self.unsent


class FakeOwner:
    """A pool of no connections, which remembers what it was told."""

    def __init__(self):
        self.told: list[str] = []

    def on_started(self, _deadline):
        pass

    def on_free(self, _connection):
        self.told.append("free")

    def on_gone(self, _connection):
        self.told.append("gone")


class Wire:
    """A connection on a fake transport with one request under way."""

    def __init__(self, *, max_body=1 << 20, clock=time.monotonic):
        self.owner = FakeOwner()
        self.transport = FakeTransport()
        self.connection = Connection(self.owner, clock)
        self.connection.connection_made(self.transport)
        self.max_body = max_body
        self.send()

    def send(self, time_limit=10.0):
        self.reply = self.connection.exchange(
            b"GET / HTTP/1.1\r\n\r\n", time_limit=time_limit, max_body=self.max_body
        )
        return self.reply

    def receive(self, *pieces):
        """Stop where the client has hung up, as a transport does."""
        for piece in pieces:
            if not self.connection.gone:
                self.connection.data_received(piece)

    def lose(self, exc=None):
        self.connection.connection_lost(exc)

    async def result(self):
        await self.reply.head()
        return self.reply.status, await self.reply.read()


class Call:
    """One request as a peer received it, and its way to answer."""

    def __init__(self, head, body, reader, writer, number):
        self.line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.headers = {
            name.lower(): value for name, value in (field.split(": ", 1) for field in fields)
        }
        self.body = body
        self.number = number  # on its connection, from 1
        self._reader = reader
        self._writer = writer

    @property
    def target(self):
        return self.line.split(" ")[1]

    async def say(self, data):
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body=b"{}", *, status="200 OK", fields=()):
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
        await self.say("\r\n".join(lines).encode("latin-1") + body)

    def hang_up(self):
        self._writer.close()

    def reset(self):
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._writer.transport.abort()

    async def left(self):
        """Wait until the client has gone."""
        try:
            await self._reader.read()
        except OSError:
            return


Script = Callable[[Call], Awaitable[None]]


class Peer:
    def __init__(self, script):
        self.script = script
        self.calls: list[Call] = []
        self.connections = 0
        self.open = 0
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        try:
            number = 0
            while not writer.is_closing():
                number += 1
                head = await reader.readuntil(b"\r\n\r\n")
                call = Call(head, b"", reader, writer, number)
                call.body = await reader.readexactly(int(call.headers.get("content-length", 0)))
                self.calls.append(call)
                await self.script(call)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def peer(script: Script, *, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Peer]:
    """A peer that answers each call as `script` does, on a free port."""
    peer = Peer(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader, writer):
        task = asyncio.create_task(peer.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, 0, backlog=4096, **options)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[HttpClient]:
    client = HttpClient(parse_base_url(url), **options)
    try:
        yield client
    finally:
        await client.close()


async def fetch(client, target="/", *, method="GET", time_limit=5.0, **options):
    """(status, body) of a call."""
    reply = await client.send(method, target, time_limit=time_limit, **options)
    return reply.status, await reply.read()


async def answer_ok(call):
    await call.answer()


class Clock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


async def until(condition, pause=0.001):
    """Let the loop turn until something has become true; the test's own limit bounds it."""
    while not condition():  # noqa: ASYNC110 - there is nothing to wait for
        await asyncio.sleep(pause)

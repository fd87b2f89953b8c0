"""A call of our HTTP client, its socket replaced by a ready reply, and what it is made of."""

import asyncio
from collections.abc import Callable
from unittest.mock import patch

import httptools

from benchmarks.in_process import Work
from benchmarks.parts import part, plain
from event_service.libs.http_client import HttpClient, parse_base_url
from event_service.libs.http_client.connection import Connection
from event_service.libs.http_client.dial import Dial

# As nginx, the fast upstream, words it.
REPLY = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 39\r\nConnection: keep-alive\r\n\r\n"
    b'{"id":"u1-0","name":"Ann","events":[]}\n'
)
FOREVER = 3600.0  # seconds


class Socket(asyncio.Transport):
    """Answers every request in the event loop's next turn."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        connection.connection_made(self)

    def write(self, _request: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._connection.data_received, REPLY)

    def get_write_buffer_size(self) -> int:
        return 0


async def connect(_dial: Dial, build: Callable[[], Connection], _within: float) -> Connection:
    connection = build()
    Socket(connection)
    return connection


class Heedless:
    """Told by llhttp what it has parsed."""

    def on_header(self, name: bytes, value: bytes) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_message_complete(self) -> None: ...


async def client_parts() -> dict[str, Work]:
    """The work of each row, by its title."""
    loop = asyncio.get_running_loop()
    client = HttpClient(parse_base_url("http://127.0.0.1"), connections=1, keep_alive=FOREVER)
    parser = httptools.HttpResponseParser(Heedless())

    async def call() -> None:
        reply = await client.send("GET", "/getUserById/u1-0", time_limit=2)
        await reply.read()

    async def wait() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    with patch.object(Dial, "connect", connect):
        await call()  # all others use its connection
    return {
        "our HTTP client without a socket, with the next two": part(call),
        "a future that is waited for": part(wait),
        "llhttp: a reply": plain(lambda: parser.feed_data(REPLY)),
    }

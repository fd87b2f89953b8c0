"""An upstream that says exactly the bytes it is told to, where the mock is too well-behaved."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Call(NamedTuple):
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


class Connection:
    """The upstream's end of one connection, from which one request has been read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read_call(self) -> Call:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in map(_split, fields)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Call(line, headers, body)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def reset(self) -> None:
        """Close so that the other side's system sees a reset instead of an orderly end."""
        await asyncio.sleep(0.02)  # a reset discards what has not left yet
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    async def hang(self) -> None:
        """Until the other side leaves."""
        await self._reader.read()


Script = Callable[[Connection, Call], Awaitable[None]]


class ScriptedUpstream:
    """Answers each call as its script says, and closes the connection when the script is over.

    `script` may be replaced at any time; `calls` are those that arrived, in their order.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.connections = 0
        self.in_flight = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = Connection(reader, writer)
        try:
            call = await connection.read_call()
            self.calls.append(call)
            self.in_flight += 1
            try:
                await self.script(connection, call)
            finally:
                self.in_flight -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(
    script: Script, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(upstream.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    upstream.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield upstream
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(*pieces: bytes | float) -> Script:
    """Sends these bytes; a number among them is a pause in seconds."""

    async def script(connection: Connection, _call: Call) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                await connection.send(piece)
            else:
                await asyncio.sleep(piece)

    return script


def replies(body: bytes = b"", *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> Script:
    """A whole reply with a `Content-Length`."""
    return says(response(body, status=status, headers=headers))


def response(body: bytes = b"", *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    # Said, because the connection is closed: the client must not count on using it again.
    fields = ("Connection: close", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1") + body


def then_reset(data: bytes = b"") -> Script:
    async def script(connection: Connection, _call: Call) -> None:
        await connection.send(data)
        await connection.reset()

    return script


def then_hang(data: bytes = b"") -> Script:
    async def script(connection: Connection, _call: Call) -> None:
        await connection.send(data)
        await connection.hang()

    return script


def by_path(scripts: dict[str, Script]) -> Script:
    """The script of the longest prefix of the call's path."""

    async def script(connection: Connection, call: Call) -> None:
        prefix = max(filter(call.path.startswith, scripts), key=len)
        await scripts[prefix](connection, call)

    return script


def _split(field: str) -> tuple[str, str, str]:
    return field.partition(":")

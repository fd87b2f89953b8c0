"""A client that sends exactly the bytes it is told to, and reads what comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import aiohttp


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; raises TimeoutError if it does not within 5 s."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  what is awaited for happens in another process
            await asyncio.sleep(0.005)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def end_sending(self) -> None:
        self._writer.write_eof()

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next response; raises IncompleteReadError if the server closed instead."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = 0 if to_head else int(headers.get("content-length", 0))
        body = await self._reader.readexactly(length)
        return Answer(int(status_line.split()[1]), headers, body)

    async def closed(self) -> bool:
        """Whether the server ends the connection, without another byte, within 15 s."""
        try:
            async with asyncio.timeout(15):
                return await self._reader.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connection(client: aiohttp.ClientSession) -> AsyncIterator[RawClient]:
    """A connection of its own to the server that `client` is for."""
    url = client._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

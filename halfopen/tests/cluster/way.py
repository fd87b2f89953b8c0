"""A node's way to Redis over a real socket, which can be slow, cut, or lead to another Redis."""

import asyncio
import contextlib
from typing import Self


class Way:
    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = False
        self._ends: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None] | None] = set()
        self.delay = 0.0  # seconds, in each direction

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        await asyncio.gather(*[each for each in self._serving if each])

    def cut(self) -> None:
        self._cut = True
        for end in self._ends:
            end.transport.abort()

    def heal(self) -> None:
        self._cut = False

    def lead_to(self, port: int) -> None:
        """As an address that a failover has moved does."""
        self.cut()
        self._port = port
        self.heal()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        ends = {writer}
        with contextlib.suppress(OSError):
            if not self._cut:
                there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
                ends.add(there)
                self._ends |= ends
                await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))
        self._ends -= ends
        for end in ends:
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        self._serving.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.delay:
                await asyncio.sleep(self.delay)
            writer.write(data)
        writer.close()

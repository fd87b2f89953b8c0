"""The service as its users run it: `event-service serve` in processes of its own."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .conftest import free_port


class ServerProcess:
    """A running `event-service serve`; `lines` holds what it wrote so far that was asked for."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[dict[str, Any]] = []

    async def line(self, event: str, **members: Any) -> dict[str, Any]:
        """The next log line of this event, with these members."""
        assert self.process.stdout is not None
        wanted = {"event": event, **members}.items()
        async with asyncio.timeout(30):
            async for raw in self.process.stdout:
                self.lines.append(json.loads(raw))
                if wanted <= self.lines[-1].items():
                    return self.lines[-1]
        raise AssertionError(f"it ended without {wanted}: {self.lines}")

    async def started(self) -> int:
        """Wait for one more worker to start; its process id."""
        pid: int = (await self.line("service started"))["pid"]
        await self.listening()
        return pid

    async def listening(self) -> None:
        while self.process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.005)
            else:
                writer.close()
                await writer.wait_closed()
                return
        raise AssertionError("it ended before it listened")

    async def stop(self) -> None:
        """Ask it to end, and read what it still has to say."""
        rest = (await self.rest()).splitlines()
        self.lines += [json.loads(line) for line in rest if line.startswith(b"{")]

    async def rest(self) -> bytes:
        """Ask it to end; what it writes until then, as it is."""
        if self.process.returncode is None:
            self.process.terminate()
        output, _ = await self.process.communicate()
        return output


@asynccontextmanager
async def serve(upstream_url: str, **environment: str) -> AsyncIterator[ServerProcess]:
    """Variables without a prefix of their own are settings: `workers="2"`."""
    port = free_port()
    variables = {
        "EVENT_SERVICE_ENV": "testing",
        "EVENT_SERVICE_PORT": str(port),
        "EVENT_SERVICE_UPSTREAM_URL": upstream_url,
        "EVENT_SERVICE_LOG_FORMAT": "json",
        **{
            name if name.isupper() else f"EVENT_SERVICE_{name.upper()}": value
            for name, value in environment.items()
        },
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "event_service", "serve"),
        env=os.environ | variables,
        stdout=PIPE,
        limit=1024 * 1024,
    )
    server = ServerProcess(process, port)
    try:
        await server.listening()
        yield server
    finally:
        await server.stop()

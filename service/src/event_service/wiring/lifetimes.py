"""Starts and stops everything that lives as long as the app."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import structlog
from starlette.routing import Router

from event_service.settings import Settings


@dataclass
class Lifetimes:
    """What to open, what to close (in reverse order), and what to run in the background until it
    is cancelled. `enders` let the background work finish before that.
    """

    openers: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    closers: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    enders: list[Callable[[], Awaitable[object]]] = field(default_factory=list)


@asynccontextmanager
async def lifespan(
    settings: Settings, lifetimes: Lifetimes, _router: Router
) -> AsyncIterator[None]:
    structlog.get_logger().info(
        "service started",
        version=version("event-service"),
        pid=os.getpid(),
        settings=settings.masked(),
    )
    async with AsyncExitStack() as stack:
        for close in lifetimes.closers:
            stack.push_async_callback(close)
        for opened in lifetimes.openers:
            await opened()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for work in lifetimes.background:
            task = tasks.create_task(_in_background(work))
            stack.callback(task.cancel)
        for end in lifetimes.enders:
            stack.push_async_callback(end)
        yield
    structlog.get_logger().info("service stopped")


async def _in_background(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:  # noqa: BLE001  requests go on; the group would close what they need
        structlog.get_logger().exception("a background task failed")

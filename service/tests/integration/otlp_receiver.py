"""A receiver of traces over OTLP/HTTP, as a collector is one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Received:
    """The spans that have arrived, and what they say of the service that sent them."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}

    def named(self, name: str) -> list[Span]:
        """The spans of this name, in the order in which they began."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = members(resource.resource)
            for scope in resource.scope_spans:
                self.spans += scope.spans


def members(owner: Any) -> dict[str, Any]:
    """The attributes of a span, an event, a link or a resource."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in owner.attributes
    }


@asynccontextmanager
async def receiving() -> AsyncIterator[Received]:
    received = Received()

    async def post(request: web.Request) -> web.Response:
        received.take(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", post)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        received.endpoint = f"http://127.0.0.1:{port}"
        yield received
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)

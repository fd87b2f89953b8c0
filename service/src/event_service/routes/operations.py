from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.http.body import read_json
from event_service.http.endpoint import Endpoint, Reply
from event_service.libs.shutdown_notice import ShutdownNotice
from halfopen import State

_encode = msgspec.json.Encoder().encode


def metrics_route(expose: Callable[[str], tuple[bytes, str]]) -> Route:
    """`expose` gets the `Accept` header, and returns the metrics and their media type."""

    async def metrics(request: Request) -> Reply:
        body, media_type = expose(request.headers.get("accept", ""))
        return Reply(body, media_type=media_type)

    return Route("/metrics", Endpoint(metrics), methods=["GET"])


class _Level(msgspec.Struct, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"]


_level = msgspec.json.Decoder(_Level)


class LogLevel(Protocol):
    def get(self) -> str: ...

    def set(self, level: str) -> None: ...


def log_level_route(log_level: LogLevel) -> Route:
    async def get_or_put(request: Request) -> Reply:
        if request.method == "PUT":
            log_level.set((await read_json(request, _level)).level)
        return Reply(_encode({"level": log_level.get()}))

    return Route("/ops/log-level", Endpoint(get_or_put), methods=["GET", "PUT"])


class Circuit(Protocol):
    """The state of one circuit over all workers."""

    @property
    def name(self) -> str: ...
    @property
    def worst(self) -> State: ...
    @property
    def where(self) -> str: ...


def health_routes(
    circuits: Callable[[], Sequence[Circuit]], notice: ShutdownNotice
) -> list[BaseRoute]:
    """`circuits` returns the current circuits; with several workers, each in its worst state."""

    async def livez(_request: Request) -> Reply:
        return Reply(_encode({"status": "ok"}))

    async def readyz(_request: Request) -> Reply:
        found = circuits()
        healthy = all(circuit.worst is State.CLOSED for circuit in found)
        status = "ok" if healthy else "degraded"
        body = {
            "status": "stopping" if notice.stopping else status,
            "breakers": {circuit.name: circuit.worst.value for circuit in found},
        }
        where = {each.name: each.where for each in found if each.worst is not State.CLOSED}
        if any(where.values()):
            body["where"] = where
        return Reply(_encode(body), status=503 if notice.stopping else 200)

    return [
        Route("/livez", Endpoint(livez), methods=["GET"]),
        Route("/readyz", Endpoint(readyz), methods=["GET"]),
    ]

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

JSON = {"Content-Type": "application/json"}
PROBLEM = {"Content-Type": "application/problem+json"}
PIECE = 64 * 1024

encode = msgspec.json.encode


class Reply(NamedTuple):
    """What an operation answers. A body too long for one piece goes on in `rest`."""

    status: int
    body: bytes
    rest: Iterator[bytes] | None = None
    headers: Mapping[str, str] = JSON


def array(items: Iterable[Any]) -> Reply:
    """Answer with a JSON array, encoded as it is sent if it is long."""
    pieces = _array_pieces(items)
    body = next(pieces)
    second = next(pieces, None)
    if second is None:
        return Reply(HTTPStatus.OK, body)
    return Reply(HTTPStatus.OK, body, _chain(second, pieces))


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def _array_pieces(items: Iterable[Any]) -> Iterator[bytes]:
    piece = bytearray(b"[")
    separator = b""
    for item in items:
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
        piece += separator + encode(item)
        separator = b","
    yield bytes(piece + b"]")


async def respond(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    if reply.rest is None:
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
    response = web.StreamResponse(status=reply.status, headers=JSON)
    await response.prepare(request)
    await response.write(reply.body)
    for piece in reply.rest:
        await response.write(piece)
        await asyncio.sleep(0)  # a fast reader never makes write() wait, and others need a turn
    return response


def problem(status: HTTPStatus, detail: str, **members: str) -> web.Response:
    return web.Response(
        status=status,
        body=encode({"title": status.phrase, "status": status, "detail": detail, **members}),
        headers=PROBLEM,
    )

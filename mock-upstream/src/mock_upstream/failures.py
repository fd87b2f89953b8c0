"""How each fault mode looks on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from http.client import responses

from aiohttp import web

from mock_upstream.faults import Fault
from mock_upstream.reply import JSON, Reply

GARBAGE = b"\x00\xff\x16\x03\x01 this is not HTTP \xfe\r\n\r\n"
OVERSIZE = 64 * 1024 * 1024
SLOW_BODY_PAUSE = 0.1
"""Seconds between two bytes."""

_BLOCK = b" " * (1024 * 1024)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def fail(
    request: web.BaseRequest, fault: Fault, reply: Callable[[], Awaitable[Reply]]
) -> web.StreamResponse:
    """Answer as the fault says.

    Only truncate and slow-body, and reset and hang with an `after`, ask for the good `reply`: in
    every other case the operation does not take place.
    """
    match fault.mode:
        case "none":
            return _answer(fault)
        case "empty":
            return web.Response(status=fault.status or HTTPStatus.OK, headers=_headers(fault))
        case "slow-body":
            return await _slow_body(request, fault, await reply())
        case "oversize":
            return await _oversize(request, fault)
        case "garbage":
            _transport(request).write(GARBAGE)
            _transport(request).close()
        case "truncate":
            _write_half(request, fault, await reply(), "half-body")
            _transport(request).close()
        case "hang" | "reset":
            if fault.after != "nothing":
                _write_half(request, fault, await reply(), fault.after)
            if fault.mode == "reset":
                _reset(_transport(request))
    return await _until_the_client_is_gone()


def _headers(fault: Fault) -> dict[str, str]:
    names = {name.lower() for name in fault.headers}
    return fault.headers if "content-type" in names else JSON | fault.headers


def _answer(fault: Fault) -> web.Response:
    if fault.body is None:
        status = fault.status or HTTPStatus.INTERNAL_SERVER_ERROR
        body = b'{"message":"this failure was asked for"}'
    else:
        status = fault.status or HTTPStatus.OK
        body = fault.body.encode()
    return web.Response(status=status, body=body, headers=_headers(fault))


async def _slow_body(request: web.BaseRequest, fault: Fault, reply: Reply) -> web.StreamResponse:
    body = reply.body if fault.body is None else fault.body.encode()
    response = web.StreamResponse(status=fault.status or reply.status, headers=_headers(fault))
    response.content_length = len(body)
    await response.prepare(request)
    for byte in body:
        await response.write(bytes([byte]))
        await asyncio.sleep(SLOW_BODY_PAUSE)
    return response


async def _oversize(request: web.BaseRequest, fault: Fault) -> web.StreamResponse:
    """A valid JSON array of nothing and much white space, so that only a bound refuses it."""
    headers = _headers(fault)
    packed = any(
        name.lower() == "content-encoding" and value.lower() == "gzip"
        for name, value in headers.items()
    )
    packer = zlib.compressobj(level=1, wbits=31) if packed else None
    response = web.StreamResponse(status=fault.status or HTTPStatus.OK, headers=headers)
    await response.prepare(request)
    for block in (b"[", *[_BLOCK] * (OVERSIZE // len(_BLOCK)), b"]"):
        await response.write(packer.compress(block) if packer else block)
        await asyncio.sleep(0)
    if packer:
        await response.write(packer.flush())
    return response


def _write_half(request: web.BaseRequest, fault: Fault, reply: Reply, part: str) -> None:
    """Write the first part of a good answer, by hand because the library only writes whole ones."""
    status = fault.status or reply.status
    headers = {**_headers(fault), "Content-Length": str(len(reply.body))}
    lines = [
        f"HTTP/1.1 {status} {responses.get(status, '')}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    parts = {
        "half-headers": head[: len(head) // 2],
        "headers": head,
        "half-body": head + reply.body[: len(reply.body) // 2],
    }
    _transport(request).write(parts[part])


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    if request.transport is None:
        raise ConnectionResetError("the client has left")
    return request.transport


def _reset(transport: asyncio.Transport) -> None:
    """Close so that the client's system sees a reset instead of an orderly end."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


async def _until_the_client_is_gone() -> web.StreamResponse:
    """Wait for the cancellation that the server sends when the connection is lost."""
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never

"""Connections that leave nothing behind."""

import asyncio
import socket
import struct

_AT_ONCE = struct.pack("ii", 1, 0)


def close_at_once(transport: asyncio.Transport) -> None:
    """Let the connection be forgotten when it is closed, by either side.

    Thousands that linger after one load use up the ports that the next one needs.
    """
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)

import ctypes
import errno
import socket
import struct
import sys
from contextlib import ExitStack, suppress
from typing import Any

# Connections that wait until they are accepted; the system may allow fewer.
BACKLOG = 4096
# What another port would mend.
_ABOUT_THE_PORT = frozenset({errno.EADDRINUSE, errno.EACCES})


# Linux's number; Python has no name for it.
_SO_ATTACH_FILTER = 26
# Where `struct tcp_info` says it of a socket that listens (as unacknowledged packets of others).
_WAITING = struct.Struct("24xI")
# A program of the packet filter: it drops what begins a connection, and nothing else.
_NO_FIRST_PACKETS = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # the flags of the TCP header
        (0x45, 0, 1, 0x02),  # is SYN among them?
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # keep it whole
    )
)


class CannotListen(Exception):
    """`host` and `port` cannot be listened on. `port_is_at_fault`: another port may be free."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(f"Cannot listen on {host} port {port} ({error.strerror or error})")
        self.port_is_at_fault = error.errno in _ABOUT_THE_PORT and not isinstance(
            error, socket.gaierror
        )


class Listener:
    """A port that is listened on by one server alone, with a queue for each of its `count` workers.

    Of two servers that ask at the same instant one gets it, and from then on nobody can share the
    port, not even with SO_REUSEPORT (with several queues `::` is the exception). Clients may
    connect at once; they wait for whoever accepts. A queue outlives the worker that accepts from
    it, so none that wait there are lost with it.

    With a queue of its own each worker gets its share of the connections; from a common one the
    worker that wakes up first takes nearly all that come at once. Only Linux distributes them over
    several queues; elsewhere there is one.

    A host that is a name is listened on at its first address, IPv4 before IPv6. Raises
    CannotListen.
    """

    def __init__(self, host: str, port: int, *, count: int = 1) -> None:
        self._stack = ExitStack()
        try:
            self._family, self._address = _address(host, port)
            if count > 1 and sys.platform == "linux":
                self._queues = self._listen_alone(count)
            else:
                self._guard = self._bind()
                self._queues = [self._guard] * count
                self._queues[0].listen(BACKLOG)
        except (OSError, UnicodeError) as error:
            self.close()
            fault = error if isinstance(error, OSError) else OSError(None, "not a name of a host")
            raise CannotListen(host, port, fault) from error
        self.port: int = self._queues[0].getsockname()[1]

    def queue(self, number: int) -> socket.socket:
        """The socket from which the worker of this number, from 1, accepts its connections."""
        return self._queues[number - 1]

    def keep(self, number: int) -> socket.socket:
        """That socket, and all others closed: for the process of that worker."""
        kept = self.queue(number)
        self._stack.pop_all()
        for each in {self._guard, *self._queues} - {kept}:
            each.close()
        self._stack.enter_context(kept)
        return kept

    def close(self) -> None:
        """Close this process's sockets; the port is free once no other process has them."""
        self._stack.close()

    def _bind(self) -> socket.socket:
        found = self._stack.enter_context(socket.socket(self._family, socket.SOCK_STREAM))
        # For connections of a server that ended before; does not let two listen at once.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.bind(self._address)
        return found

    def _listen_alone(self, count: int) -> list[socket.socket]:
        guard = self._guard = self._bind()
        self._address = guard.getsockname()
        first = self._bind()
        # The decision: it fails for all who come after the first one.
        first.listen(BACKLOG)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        queues = [first]
        for _ in range(count - 1):
            other = self._stack.enter_context(socket.socket(self._family, socket.SOCK_STREAM))
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            other.bind(self._address)
            other.listen(BACKLOG)
            queues.append(other)
        # Who binds must agree with all who are bound, and the guard agrees with nobody.
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._forget_that_the_port_is_shared()
        return queues

    def _forget_that_the_port_is_shared(self) -> None:
        """Linux does not ask all who are bound while the last one who came would share."""
        with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as other:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::1", self._address[1]))


def take_no_more(queue: socket.socket) -> None:
    """Let nobody else into the queue; those who are in it can still be accepted.

    To close a queue resets the connections in it. After this, and a moment, there are none; who
    wants to connect meanwhile asks again within a second, and is refused if the queue is closed by
    then. Only Linux can do it; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        size = len(_NO_FIRST_PACKETS) // 8
        with memoryview(bytearray(_NO_FIRST_PACKETS)) as program:
            address = ctypes.addressof(ctypes.c_char.from_buffer(program))
            # Where filters are forbidden the queue is closed with whoever is in it.
            with suppress(OSError):
                filters = struct.pack("HL", size, address)
                queue.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filters)


def waiting(queue: socket.socket) -> int:
    """How many connections wait in the queue; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    information = queue.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING.size)
    (count,) = _WAITING.unpack(information)
    return int(count)


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address

import ctypes
import errno
import socket
import struct
import sys
from contextlib import ExitStack, suppress
from typing import Any

# Pending connections; the system may allow fewer.
BACKLOG = 4096
# Errors that another port would avoid.
_ABOUT_THE_PORT = frozenset({errno.EADDRINUSE, errno.EACCES})


# Linux's number; Python has no name for it.
_SO_ATTACH_FILTER = 26
# Offset of the accept-queue length in a listening socket's `struct tcp_info` (its `tcpi_unacked`).
_WAITING = struct.Struct("24xI")
# A packet filter (BPF) that drops SYN packets and nothing else.
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
    """Cannot listen on `host` and `port`. `port_is_at_fault`: another port may be free."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(f"Cannot listen on {host} port {port} ({error.strerror or error})")
        self.port_is_at_fault = error.errno in _ABOUT_THE_PORT and not isinstance(
            error, socket.gaierror
        )


class Listener:
    """A port owned by this server alone, with one accept queue for each of its `count` workers.

    If two servers ask at the same instant, one gets the port; after that nobody can share it, not
    even with SO_REUSEPORT (except `::` with several queues). Clients can connect at once and wait
    to be accepted. A queue outlives its worker, so connections waiting in it are not lost with the
    worker.

    Separate queues give each worker its share of connections; from a shared queue, the worker that
    wakes first takes nearly all of a burst. Only Linux distributes over several queues; elsewhere
    there is one.

    A host name is resolved to its first address, IPv4 before IPv6. Raises CannotListen.
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
        """The socket from which worker `number`, from 1, accepts its connections."""
        return self._queues[number - 1]

    def keep(self, number: int) -> socket.socket:
        """The worker's own socket; closes all others in this process."""
        kept = self.queue(number)
        self._stack.pop_all()
        for each in {self._guard, *self._queues} - {kept}:
            each.close()
        self._stack.enter_context(kept)
        return kept

    def close(self) -> None:
        """Close this process's sockets. The port is free once no other process holds them."""
        self._stack.close()

    def _bind(self) -> socket.socket:
        found = self._stack.enter_context(socket.socket(self._family, socket.SOCK_STREAM))
        # Needed while connections of an earlier server linger; does not let two servers listen.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit this.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.bind(self._address)
        return found

    def _listen_alone(self, count: int) -> list[socket.socket]:
        guard = self._guard = self._bind()
        self._address = guard.getsockname()
        first = self._bind()
        # This bind decides: it fails for every later server.
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
        # A new socket must be compatible with all bound ones, and the guard socket is compatible
        # with none.
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._forget_that_the_port_is_shared()
        return queues

    def _forget_that_the_port_is_shared(self) -> None:
        """Make Linux check all bound sockets, not only the last one, before it shares the port
        again.
        """
        with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as other:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::1", self._address[1]))


def take_no_more(queue: socket.socket) -> None:
    """Refuse new connections to the queue; those already in it can still be accepted.

    Closing a queue resets its connections. After this call and a short moment the queue can be
    drained and closed without losing any: a client that connects meanwhile retries within a second
    and is refused if the queue is closed by then. Linux only; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        size = len(_NO_FIRST_PACKETS) // 8
        with memoryview(bytearray(_NO_FIRST_PACKETS)) as program:
            address = ctypes.addressof(ctypes.c_char.from_buffer(program))
            # Without permission for filters, the queue is closed with whatever is in it.
            with suppress(OSError):
                filters = struct.pack("HL", size, address)
                queue.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filters)


def waiting(queue: socket.socket) -> int:
    """Number of connections in the queue; 0 if the system does not tell."""
    if sys.platform != "linux":
        return 0
    information = queue.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING.size)
    (count,) = _WAITING.unpack(information)
    return int(count)


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address

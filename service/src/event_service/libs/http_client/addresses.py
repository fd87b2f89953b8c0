import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from event_service.libs.http_client.errors import ConnectFailed, OutOfResources

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

# Seconds for which the addresses of a name are used without a new lookup, and after which a failed
# lookup is repeated while there are old addresses.
MAX_AGE = 60.0
RETRY = 5.0


class Addresses:
    """The addresses of one host; a use after more than a minute looks them up again.

    All callers share one lookup. While a new one fails or hangs, the old addresses are used.
    `on_moved` is called with the new addresses when they change.
    """

    def __init__(self, host: str, port: int, *, clock: Callable[[], float]) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self.on_moved: Callable[[frozenset[str]], None] | None = None
        self._known: list[AddrInfo] = []
        self._lookup: asyncio.Task[list[AddrInfo]] | None = None
        self.stale_at = float("-inf")
        if is_address(host):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._known = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
            self.stale_at = float("inf")

    def refresh(self) -> asyncio.Task[list[AddrInfo]]:
        """Start a lookup, or return the current one."""
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._look_up(), name="address lookup")
            self._lookup.add_done_callback(self._looked_up)
        return self._lookup

    async def get(self, patience: float) -> list[AddrInfo]:
        """Raise ConnectFailed or OutOfResources if there are none.

        `patience`: seconds to wait for a lookup before the old addresses are used.
        """
        if self._clock() < self.stale_at:
            return self._known
        lookup = self.refresh()
        if self._known:
            await asyncio.wait({lookup}, timeout=patience)
            return self._known
        # Others may wait for the lookup, so a cancelled caller must not cancel it.
        return await asyncio.shield(lookup)

    async def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait({self._lookup})

    async def _look_up(self) -> list[AddrInfo]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        except (OSError, UnicodeError) as exc:
            # Without a free file descriptor the resolver reports that the name does not exist.
            _require_descriptors()
            reason = getattr(exc, "strerror", None) or "not a possible name"
            raise ConnectFailed(f"the name could not be looked up: {reason}") from exc
        return list(found)

    def _looked_up(self, lookup: asyncio.Task[list[AddrInfo]]) -> None:
        self._lookup = None
        if lookup.cancelled():
            return
        now = self._clock()
        if lookup.exception() is not None:
            self.stale_at = now + RETRY if self._known else now
            return
        before, self._known = self._known, lookup.result()
        self.stale_at = now + MAX_AGE
        hosts = frozenset(info[4][0] for info in self._known)
        if self.on_moved is not None and hosts != {info[4][0] for info in before}:
            self.on_moved(hosts)


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _require_descriptors() -> None:
    try:
        socket.socket().close()
    except OSError as exc:
        raise OutOfResources(f"no connection can be made: {exc.strerror}") from exc

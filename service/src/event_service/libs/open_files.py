"""How many files may be open, and how they are divided."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Reserved for lookups, certificates and libraries.
RESERVE = 16
# The most connections a server is configured for; with more files than this, no division is needed.
MOST_CONNECTIONS = 65_535


class FileShares(NamedTuple):
    """Connections and calls that the open files suffice for; with more, accepting would fail."""

    connections: int
    calls: int


def raise_limit() -> None:
    """Raise this process's open-file limit as far as its user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # If the hard limit exceeds the system's own, the soft limit stays.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_out(limit: int, *, used: int, calls: int) -> FileShares:
    """How many connections and calls `limit` allows, with `used` files open and `calls` wanted.

    Calls get at most half: each one serves a connection, so more would be useless.
    """
    room = max(2, limit - used - RESERVE)
    calls = min(calls, room // 2)
    return FileShares(min(MOST_CONNECTIONS, room - calls), calls)


def limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def open_now() -> int:
    """Number of open files; an estimate if the system does not tell."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return 32

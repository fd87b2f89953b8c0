"""How many open files there may be, and what they are for."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# For what is neither a client's connection nor a call of ours: lookups, certificates, libraries.
RESERVE = 16
# Connections that a server can be asked for; above this many files nothing has to be shared out.
MOST_CONNECTIONS = 65_535


class FileShares(NamedTuple):
    """What open files are enough for. Whoever takes more finds none left to accept with."""

    connections: int
    calls: int


def raise_limit() -> None:
    """Let this process open as many files as its user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where more than the system takes is allowed, its own limit stays.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_out(limit: int, *, used: int, calls: int) -> FileShares:
    """Connections and calls that `limit` allows where `used` are open, and `calls` are wanted.

    Calls get at most half: each answers a connection, so more of them would find nobody to answer.
    """
    room = max(2, limit - used - RESERVE)
    calls = min(calls, room // 2)
    return FileShares(min(MOST_CONNECTIONS, room - calls), calls)


def limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def open_now() -> int:
    """How many are open; a guess where the system does not tell."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return 32

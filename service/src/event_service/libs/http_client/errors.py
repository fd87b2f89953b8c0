"""The errors of a call, with its progress so far.

Their texts contain no URL, no header and no byte from the peer.
"""

from enum import Enum
from typing import NamedTuple


class Progress(Enum):
    """How far a call got. A request that was never sent is always safe to repeat."""

    NEVER_SENT = "never sent"
    SENT = "sent, no byte of a reply"
    REPLYING = "reply under way"


class Timings(NamedTuple):
    """In seconds; None for steps that did not happen, or not yet.

    `connect` covers the name lookup, connecting and the proxy's tunnel, `tls` the handshake; both
    are None on a reused connection. `first_byte` and `whole` count from the time at which the
    request was written.
    """

    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    whole: float | None = None


class HttpClientError(Exception):
    """A call failed. `timings` are those of the completed steps."""

    progress: Progress = Progress.NEVER_SENT
    timings: Timings = Timings()


class InvalidRequest(HttpClientError, ValueError):
    """The request cannot be written as HTTP: a line break in a header, a space in a path."""


class ClientClosed(HttpClientError):
    """The client was closed before the call could begin."""


class OutOfResources(HttpClientError):
    """We have no file descriptor, port or memory left for a connection. It says nothing about
    the peer.
    """


class ConnectFailed(HttpClientError):
    """No connection: unknown name, refused, or no route."""


class ProxyFailed(ConnectFailed):
    """The proxy did not open a tunnel to the peer."""


class TlsFailed(ConnectFailed):
    """The TLS handshake failed, or the certificate is not trusted."""


class TimedOut(HttpClientError):
    """The call exceeded its time limit. The text says what it waited for."""


class Broken(HttpClientError):
    """The connection ended before the reply did."""


class Malformed(HttpClientError):
    """The reply is not HTTP/1.1, or cannot be read safely."""

    progress: Progress = Progress.REPLYING


class Undecodable(Malformed):
    """The body is complete, but does not match its content encoding."""


class TooLarge(Malformed):
    """The body, encoded or decoded, exceeds its limit."""

"""What can go wrong with a call, and how far it had come by then.

No text of these errors holds a URL, a header or a byte that the peer sent.
"""

from enum import Enum
from typing import NamedTuple


class Progress(Enum):
    """How far a call had come. What was never sent may be tried again without a doubt."""

    NEVER_SENT = "never sent"
    SENT = "sent, no byte of a reply"
    REPLYING = "reply under way"


class Timings(NamedTuple):
    """Seconds, None for what did not happen or has not happened yet.

    `connect` covers looking up the name, the address and the proxy's tunnel, `tls` the handshake;
    both are None on a connection that was open already. `first_byte` and `whole` count from the
    moment at which the request was written.
    """

    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    whole: float | None = None


class HttpClientError(Exception):
    """A call brought no reply. `timings` tells how long what had happened took."""

    progress: Progress = Progress.NEVER_SENT
    timings: Timings = Timings()


class InvalidRequest(HttpClientError, ValueError):
    """The request cannot be written as HTTP: a line break in a header, a space in a path."""


class ClientClosed(HttpClientError):
    """The client was closed before the call could begin."""


class OutOfResources(HttpClientError):
    """Our own machine has no descriptor, port or memory left for a connection: says nothing
    about the peer.
    """


class ConnectFailed(HttpClientError):
    """No connection came about: no such name, nobody listens, no route."""


class ProxyFailed(ConnectFailed):
    """The proxy made no tunnel to the peer."""


class TlsFailed(ConnectFailed):
    """There was no agreement on TLS, or a certificate that is not to be trusted."""


class TimedOut(HttpClientError):
    """The call's time was over. The text says what it waited for."""


class Broken(HttpClientError):
    """The connection ended before the reply did."""


class Malformed(HttpClientError):
    """What came is no HTTP/1.1 reply, or is none that can be read safely."""

    progress: Progress = Progress.REPLYING


class Undecodable(Malformed):
    """The body is whole, but not what its content encoding says."""


class TooLarge(Malformed):
    """The body, or what it decodes to, is longer than it may be."""

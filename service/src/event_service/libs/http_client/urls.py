"""Checks of the URLs, paths and headers that this client can use.

Check such values where they enter the program; then no call fails because of them later.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import unquote

# RFC 3986: the characters of a path, and of a query after it.
_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_NAME = 253

OWN_HEADERS = frozenset({
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
})  # fmt: skip


class BaseUrl(NamedTuple):
    """The base of all calls. `host` is without brackets; `path` has no trailing slash."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as in a Host header, without the scheme's default port."""
        return self.netloc if self.port != _DEFAULT_PORTS[self.scheme] else self._bracketed

    @property
    def netloc(self) -> str:
        return f"{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class Proxy(NamedTuple):
    """An HTTP proxy; `credentials` are (user, password)."""

    host: str
    port: int
    credentials: tuple[str, str] | None


def parse_base_url(text: str) -> BaseUrl:
    """Raises ValueError with one sentence if no call could be made to it."""
    scheme, rest = _scheme(text)
    authority, slash, path = rest.partition("/")
    if any(mark in text for mark in "?#"):
        raise ValueError("A base URL has no '?' and no '#'.")
    if "@" in authority:
        raise ValueError("A base URL holds no user or password; send them as a header.")
    if not _PATH.fullmatch(path):
        raise ValueError(
            "The URL's path has a character that a path may not hold unescaped, or a broken "
            "percent escape."
        )
    host, port = _host_and_port(authority, _DEFAULT_PORTS[scheme])
    return BaseUrl(scheme, host, port, (slash + path).rstrip("/"))


def parse_proxy_url(text: str) -> Proxy:
    """Raises ValueError with one sentence if it is not `http://[user:password@]host[:port]`."""
    scheme, rest = _scheme(text)
    if scheme != "http":
        raise ValueError("A proxy's URL begins with http://; TLS to the proxy is not supported.")
    rest = rest.removesuffix("/")
    user_info, at, authority = rest.rpartition("@")
    if any(mark in authority for mark in "/?#"):
        raise ValueError("A proxy's URL ends with its host and port.")
    host, port = _host_and_port(authority, _DEFAULT_PORTS[scheme])
    if not at:
        return Proxy(host, port, None)
    user, _, password = user_info.partition(":")
    # RFC 7617: a user's name contains no colon, and neither contains a control character.
    credentials = unquote(user), unquote(password)
    if ":" in credentials[0] or not all(part.isprintable() for part in credentials):
        raise ValueError("The proxy's user or password has a character that it may not hold.")
    return Proxy(host, port, credentials)


def check_target(text: str) -> None:
    """Raises ValueError if it is not a path below a base URL, with or without a query."""
    path, _, query = text.partition("?")
    if not path.startswith("/"):
        raise ValueError("A path begins with '/'.")
    if "#" in text:
        raise ValueError("A path has no '#'.")
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        raise ValueError(
            "The path has a character that it may not hold unescaped, or a broken percent escape."
        )


def check_headers(headers: Mapping[str, str], *, reserved: Iterable[str] = ()) -> None:
    """Raises ValueError for a header that cannot be sent with every call.

    `reserved` are names, in lower case, that the caller sets itself, in addition to the client's
    own. The error's text contains no values, because they may be secret.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header.")
        small = name.lower()
        if small in OWN_HEADERS or small in reserved:
            raise ValueError(f"The header {name} is not to be set: the client sets it itself.")
        if small in seen:
            raise ValueError(f"The header {name} stands there twice.")
        seen.add(small)
        if not _VALUE.fullmatch(value):
            raise ValueError(f"The value of the header {name} has a character that none may hold.")


def is_field(name: str, value: str) -> bool:
    """Whether this is a valid HTTP field, which cannot inject another line."""
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value))


def _scheme(text: str) -> tuple[str, str]:
    if not text.isascii():
        raise ValueError("A URL is ASCII; a host of other letters is written in its xn-- form.")
    if not text.isprintable() or " " in text:
        raise ValueError("A URL has no space and no control character.")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORTS:
        raise ValueError("A URL begins with http:// or https://.")
    return scheme, rest


def _host_and_port(authority: str, default_port: int) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("An IPv6 address stands between '[' and ']', a port after a ':'.")
        _check_ipv6(host)
    else:
        host, colon, port = authority.partition(":")
        rest = colon + port
        _check_host(host)
    return host, _port(rest[1:]) if rest else default_port


def _port(text: str) -> int:
    if not (text.isdecimal() and len(text) <= len("65535") and 0 < int(text) <= 65_535):  # noqa: PLR2004
        raise ValueError("A port is a number from 1 to 65535.")
    return int(text)


def _check_ipv6(host: str) -> None:
    if "%" in host:
        raise ValueError("An IPv6 address with a zone cannot be used in a URL.")
    try:
        IPv6Address(host)
    except AddressValueError:
        raise ValueError(f"[{host}] is no IPv6 address.") from None


def _check_host(host: str) -> None:
    if not host:
        raise ValueError("The URL names no host.")
    labels = host.removesuffix(".").split(".")
    # As in browsers: a host that ends in a number must be an IPv4 address.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(host)
        except AddressValueError:
            raise ValueError(f"{host} is no IPv4 address.") from None
    elif len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{host!r} cannot be the name of a host.")

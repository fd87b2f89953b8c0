"""Checks of single settings. A ValueError is a message for the person who set the value."""

import json
import re
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from event_service.libs.http_client import (
    check_headers,
    check_target,
    parse_base_url,
    parse_proxy_url,
    tls_context,
)

SHORTEST_TOKEN = 16
DATABASES = ("sqlite", "postgresql", "postgres")
UPSTREAM_PATHS = {
    "getUsers": "/getUsers",
    "getUserById": "/getUserById/{id}",
    "getEvents": "/getEvents",
    "getEventById": "/getEventById/{id}",
    "addEvent": "/addEvent",
}
# For an upstream that returns all events of a user in one call; `{id}` may stand in the query.
OPTIONAL_PATHS = {"getEventsByUserId": "/getEventsByUserId/{id}"}

# Set for each call separately, so a configured one would contradict it.
SET_BY_US = ("content-type", "idempotency-key", "x-request-id", "traceparent", "tracestate")

_is_header_name = re.compile(r"[A-Za-z0-9_-]+\Z").match
_is_cluster_name = re.compile(r"[A-Za-z0-9._-]{1,64}\Z").match


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004  pydantic reports ValueError only
    return decoded


def rate(value: str) -> str:
    if value:
        # Imported only if needed: this takes a tenth of the start.
        from event_service.libs.rates import parse_rates  # noqa: PLC0415

        try:
            parse_rates(value)
        except ValueError:
            form = "a rate such as 100/second, or several: 100/second;5000/hour"
            raise ValueError(f"must be {form}") from None
    return value


def listed(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def network(value: object) -> str:
    try:
        return str(ip_network(str(value)))
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8, separated by commas") from None


def origins(value: list[str]) -> list[str]:
    if value != ["*"] and not all(map(_is_origin, value)):
        raise ValueError("must be origins such as https://app.example.com, or '*' alone")
    return value


def _is_origin(text: str) -> bool:
    """Whether the text is an origin as browsers write it."""
    try:
        url = parse_base_url(text)
    except ValueError:
        return False
    return text == f"{url.scheme}://{url.authority.lower()}"


def header_name(value: str) -> str:
    if value and not _is_header_name(value):
        raise ValueError("must be the name of a header")
    return value.lower()


def headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    texts = {name: secret.get_secret_value() for name, secret in value.items()}
    for name, text in texts.items():
        if not text.isascii() or not text.isprintable():
            raise ValueError(f"the value of {name!a} must be printable ASCII on one line")
    check_headers(texts, reserved=SET_BY_US)
    return value


def paths(value: dict[str, str]) -> dict[str, str]:
    known = UPSTREAM_PATHS | OPTIONAL_PATHS
    for operation, template in value.items():
        default = known.get(operation)
        if default is None:
            raise ValueError(f"{operation!a} is not one of {', '.join(known)}")
        if not template.startswith("/"):
            raise ValueError(f"the path of {operation} must begin with '/'")
        ids = default.count("{id}")
        if template.count("{id}") != ids or "{" in template.replace("{id}", ""):
            wanted = "exactly one {id}" if ids else "no placeholder"
            raise ValueError(f"the path of {operation} must have {wanted}")
        if "?" in template and operation not in OPTIONAL_PATHS:
            raise ValueError(f"the path of {operation} must have no query")
        try:
            check_target(template.replace("{id}", "1"))
        except ValueError as error:
            raise ValueError(f"the path of {operation} cannot be sent: {error}") from None
    return UPSTREAM_PATHS | value


def token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SHORTEST_TOKEN:
        raise ValueError(f"must have at least {SHORTEST_TOKEN} characters")
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII without spaces around it")
    return value


def is_utf_8(text: str) -> bool:
    """False if the text contains surrogates, which Python uses for bytes that are not UTF-8."""
    return all(not "\ud800" <= each <= "\udfff" for each in text)


def is_database(url: str) -> bool:
    """Whether the upstream's address names a database rather than an HTTP API."""
    return url.partition("://")[0].lower() in DATABASES


def host(value: str) -> str:
    try:
        url = parse_base_url(f"http://[{value}]" if ":" in value else f"http://{value}")
    except ValueError:
        url = None
    if url is None or url.host != value:
        raise ValueError("must be an address or a name of this machine, without a port")
    return value


def base_url(value: str) -> str:
    if not value.lower().startswith(("http://", "https://")):
        raise ValueError("must be http://…, https://…, sqlite:///… or postgresql://…")
    parse_base_url(value)
    return _with_small_scheme(value).rstrip("/")


def _with_small_scheme(url: str) -> str:
    """The URL with its scheme in lower case; capitals mean the same (RFC 3986, 3.1)."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest}"


def page(value: str) -> str:
    """Raises ValueError if the value cannot be a link."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("must be http://… or https://… without credentials")
    return value


def page_of_trace(value: str) -> str:
    """Raises ValueError if the value has no place for a trace id, or cannot be a link."""
    if value and "{trace_id}" not in value:
        raise ValueError("must have {trace_id} where the id belongs")
    return page(value)


def database(value: str) -> str:
    """Raises ValueError for an invalid database address, and if its driver is missing."""
    value = _with_small_scheme(value)
    if not is_database(value):
        raise ValueError("must be sqlite:///relative, sqlite:////absolute or postgresql://…")
    # Imported only if needed.
    if value.startswith("sqlite:"):
        from event_service.libs.sqlite import path_of  # noqa: PLC0415

        path = path_of(value)
        if str(path) == ":memory:" or path.is_dir():
            raise ValueError("must name a file: sqlite:///relative or sqlite:////absolute")
        if not path.absolute().parent.is_dir():
            raise ValueError("must name a file in a folder that exists")
        return value
    _require("psycopg", "postgres")
    from event_service.libs.postgres import conninfo_of  # noqa: PLC0415

    conninfo_of(value, connect_timeout=1)
    return value


def database_or_off(value: str) -> str:
    return database(value) if value else ""


def redis(value: str) -> str:
    value = _with_small_scheme(value)
    if value:
        scheme, _, rest = value.partition("://")
        address, _, path = re.split(r"[?#]", rest)[0].partition("/")
        authority = address.rpartition("@")[2]
        if scheme not in {"redis", "rediss"} or not (path == "" or path.isdecimal()):
            raise ValueError("must be redis://host:port/number or rediss://…")
        parse_base_url(f"http://{authority}")
        _require("redis", "cluster")
        from halfopen.redis.link import RedisLink  # noqa: PLC0415

        RedisLink(value)
        options = parse_qs(urlsplit(value).query)
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            for path in options.get(name, ()):
                file(Path(path))
    return value


def proxy(value: str) -> str:
    if value:
        parse_proxy_url(value)
    return value.rstrip("/")


def ca_file(value: Path) -> Path:
    tls_context(ca_file=value)
    return value


def file(value: Path) -> Path:
    try:
        value.open("rb").close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no possible name of a file"
        raise ValueError(f"cannot be read: {reason}") from None
    return value


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise ValueError(f"needs: pip install 'event-service[{extra}]'")


def cluster_name(value: str) -> str:
    if not _is_cluster_name(value):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-'")
    return value

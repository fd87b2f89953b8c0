"""The judges of single values of settings. They raise ValueError, in words for whoever set them."""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

HIDDEN = "**********"
SHORTEST_TOKEN = 16
DATABASES = ("sqlite", "postgresql")
UPSTREAM_PATHS = {
    "getUsers": "/getUsers",
    "getUserById": "/getUserById/{id}",
    "getEvents": "/getEvents",
    "getEventById": "/getEventById/{id}",
    "addEvent": "/addEvent",
}
# An upstream that gives all events of a user in one call; its `{id}` may stand in a query.
OPTIONAL_PATHS = {"getEventsByUserId": "/getEventsByUserId/{id}"}

_is_origin = re.compile(r"https?://[a-z0-9.\[\]:_-]+\Z").match
_is_url = re.compile(r"[!-~]+\Z").match
_credentials = re.compile(r"(://)[^/?#]*@")
_password_parameter = re.compile(
    r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*", re.IGNORECASE
)
_before_host = re.compile(r"\A.*@", re.DOTALL)
_query = re.compile(r"[?#].*\Z", re.DOTALL)
_is_host = re.compile(r"[A-Za-z0-9._:-]+\Z").match
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
        # What is not switched on is not loaded: this takes a tenth of the start.
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
    if value != ["*"] and not all(_is_origin(origin) for origin in value):
        raise ValueError("must be origins such as https://app.example.com, or '*' alone")
    return value


def header_name(value: str) -> str:
    if value and not _is_header_name(value):
        raise ValueError("must be the name of a header")
    return value.lower()


def headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, secret in value.items():
        text = secret.get_secret_value()
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError("a header's name is letters, digits, '-' or '_'")
        if not text.isascii() or not text.isprintable():
            raise ValueError(f"the value of {name} must be printable ASCII on one line")
    return value


def paths(value: dict[str, str]) -> dict[str, str]:
    known = UPSTREAM_PATHS | OPTIONAL_PATHS
    for operation, template in value.items():
        default = known.get(operation)
        if default is None:
            raise ValueError(f"{operation} is not one of {', '.join(known)}")
        if not template.startswith("/"):
            raise ValueError(f"the path of {operation} must begin with '/'")
        ids = default.count("{id}")
        if template.count("{id}") != ids or "{" in template.replace("{id}", ""):
            wanted = "exactly one {id}" if ids else "no placeholder"
            raise ValueError(f"the path of {operation} must have {wanted}")
    return UPSTREAM_PATHS | value


def token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SHORTEST_TOKEN:
        raise ValueError(f"must have at least {SHORTEST_TOKEN} characters")
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII without spaces around it")
    return value


def is_database(url: str) -> bool:
    """Whether an upstream's address is that of a database, not of an HTTP API."""
    return url.partition("://")[0].lower() in DATABASES


def hide_credentials(url: str) -> str:
    """The address as it may be shown: what stands before its host, and passwords in its query,
    read `**********`.
    """
    url = _credentials.sub(r"\1" + HIDDEN + "@", url)
    return _password_parameter.sub(r"\1" + HIDDEN, url)


def hide_anything(text: str) -> str:
    """Any text as it may be quoted, though it was meant to be an address and is none."""
    text = _before_host.sub(HIDDEN + "@", text)
    return _query.sub(r"?" + HIDDEN, text) if "://" in text else text


def host(value: str) -> str:
    if "://" in value or not _is_host(value):
        raise ValueError("must be an address or a name of this machine, without a port")
    return value


def base_url(value: str) -> str:
    form = "must be an absolute http:// or https:// address"
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(form) from None
    if not usable:
        raise ValueError(form)
    if parts.username or parts.password:
        raise ValueError("must not hold credentials; send them with UPSTREAM_HEADERS")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or a fragment")
    return value.rstrip("/")


def database(value: str) -> str:
    """Raises ValueError for what is no address of a database."""
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in DATABASES or not _is_url(value):
        raise ValueError("must be sqlite:///relative, sqlite:////absolute or postgresql://…")
    if scheme == "sqlite" and (not rest.startswith("/") or rest.strip("/") in {"", ":memory:"}):
        raise ValueError("must name a file: sqlite:///relative or sqlite:////absolute")
    return value


def database_or_off(value: str) -> str:
    return database(value) if value else ""


def redis(value: str) -> str:
    if value:
        parts = urlsplit(value)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname or not _is_url(value):
            raise ValueError("must be redis://… or rediss://…")
    return value


def proxy(value: str) -> str:
    if value:
        parts = urlsplit(value)
        if parts.scheme != "http" or not parts.hostname or not _is_url(value):
            raise ValueError("must be the http:// address of a proxy")
    return value.rstrip("/")


def file(value: Path) -> Path:
    try:
        value.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return value


def cluster_name(value: str) -> str:
    if not _is_cluster_name(value):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-'")
    return value

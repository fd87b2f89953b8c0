"""Everything configurable, validated once at start."""

import json
import os
import re
from collections.abc import Iterable
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "EVENT_SERVICE_"
_is_origin = re.compile(r"https?://[a-z0-9.\[\]:_-]+\Z").match
_is_url = re.compile(r"[!-~]+\Z").match
_credentials = re.compile(r"(://)[^/?#]*@")
_password_parameter = re.compile(
    r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*", re.IGNORECASE
)
_is_header_name = re.compile(r"[A-Za-z0-9_-]+\Z").match
# Set by `serve` for its workers, where there are several; nobody else's to set.
WORKERS_DIR = f"_{PREFIX}WORKERS_DIR"
DEVELOPMENT_UPSTREAM = "http://127.0.0.1:4010"
UPSTREAM_PATHS = {
    "getUsers": "/getUsers",
    "getUserById": "/getUserById/{id}",
    "getEvents": "/getEvents",
    "getEventById": "/getEventById/{id}",
    "addEvent": "/addEvent",
}
# An upstream that gives all events of a user in one call; its `{id}` may stand in a query.
OPTIONAL_PATHS = {"getEventsByUserId": "/getEventsByUserId/{id}"}
HIDDEN = "**********"
SHORTEST_TOKEN = 16
UPSTREAM_TIMEOUT = 2.0
WITH_CREDENTIALS = ("upstream_url", "upstream_proxy", "outbox_url", "cluster_url")
DATABASES = ("sqlite", "postgresql")
HTTP_CONCURRENCY = 1024
DATABASE_CONCURRENCY = 16
# PostgreSQL lets in 100 connections as it comes, and more processes than one ask for theirs.
MAX_DATABASE_CONCURRENCY = 100
# Share of the request's deadline that one attempt may take where its own limit is not set.
ATTEMPT_SHARE = 0.9


class _Default(float):
    """A default that is told apart from the same number set by somebody."""


class ConfigurationError(Exception):
    """The environment does not describe a service that could start; the text lists every fault."""


class Environment(StrEnum):
    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        decoded = json.loads(value)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004  pydantic reports ValueError only
    return decoded


def _rate(value: str) -> str:
    if value:
        # What is not switched on is not loaded: this takes a tenth of the start.
        from event_service.libs.rates import parse_rates  # noqa: PLC0415

        try:
            parse_rates(value)
        except ValueError:
            form = "a rate such as 100/second, or several: 100/second;5000/hour"
            raise ValueError(f"must be {form}") from None
    return value


def _listed(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _network(value: object) -> str:
    try:
        return str(ip_network(str(value)))
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8, separated by commas") from None


def _origins(value: list[str]) -> list[str]:
    if value != ["*"] and not all(_is_origin(origin) for origin in value):
        raise ValueError("must be origins such as https://app.example.com, or '*' alone")
    return value


def _header_name(value: str) -> str:
    if value and not _is_header_name(value):
        raise ValueError("must be the name of a header")
    return value.lower()


def _headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, secret in value.items():
        text = secret.get_secret_value()
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError("a header's name is letters, digits, '-' or '_'")
        if not text.isascii() or not text.isprintable():
            raise ValueError(f"the value of {name} must be printable ASCII on one line")
    return value


def _paths(value: dict[str, str]) -> dict[str, str]:
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


def _token(value: SecretStr) -> SecretStr:
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


def _database(value: str) -> str:
    """Raises ValueError for what is no address of a database."""
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in DATABASES or not _is_url(value):
        raise ValueError("must be sqlite:///relative, sqlite:////absolute or postgresql://…")
    if scheme == "sqlite" and (not rest.startswith("/") or rest.strip("/") in {"", ":memory:"}):
        raise ValueError("must name a file: sqlite:///relative or sqlite:////absolute")
    return value


def _database_or_off(value: str) -> str:
    return _database(value) if value else ""


def _redis(value: str) -> str:
    if value:
        parts = urlsplit(value)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname or not _is_url(value):
            raise ValueError("must be redis://… or rediss://…")
    return value


def _proxy(value: str) -> str:
    if value:
        parts = urlsplit(value)
        if parts.scheme != "http" or not parts.hostname or not _is_url(value):
            raise ValueError("must be the http:// address of a proxy")
    return value.rstrip("/")


def _file(value: Path) -> Path:
    try:
        value.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return value


def _concurrency(data: dict[str, Any]) -> int:
    return DATABASE_CONCURRENCY if is_database(data["upstream_url"]) else HTTP_CONCURRENCY


def _attempt(data: dict[str, Any]) -> float:
    deadline: float = data["request_deadline"]
    return min(UPSTREAM_TIMEOUT, ATTEMPT_SHARE * deadline)


# A day. Above it a number is a slip, and far above it clocks and selectors overflow.
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrOff = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
# A year: what is kept, not waited for.
LongSeconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
LongSecondsOrOff = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Read from `EVENT_SERVICE_*` variables. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    env: Environment = Environment.DEVELOPMENT
    """`production` requires `UPSTREAM_URL`, ignores `.env`, and asks operators for the token.
    `testing` ignores `.env`.
    """
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=3000, ge=1, le=65535)
    """Port to listen on."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes. Each has breakers, limits and a cache of its own; about one for each core."""

    request_deadline: Seconds = _Default(5.0)
    """Seconds that a request may take, with everything that it waits for."""

    upstream_url: str = Field(default="", validate_default=True)
    """Base address of the events API, required in production; or `sqlite:///relative`,
    `sqlite:////absolute` or `postgresql://…`: then that database holds users and events.
    """
    upstream_headers: Annotated[
        dict[str, SecretStr], NoDecode, BeforeValidator(_json_object), AfterValidator(_headers)
    ] = {}
    """Sent with every upstream call, as a JSON object. For credentials."""
    upstream_paths: Annotated[
        dict[str, str], NoDecode, BeforeValidator(_json_object), AfterValidator(_paths)
    ] = UPSTREAM_PATHS
    """Paths of an upstream that differ, as a JSON object from operation to template.
    `getEventsByUserId` is there for an upstream that gives all events of a user in one call.
    """
    upstream_timeout: Seconds = Field(default_factory=_attempt)
    """Seconds that one attempt at the upstream may take; never more than 0.9 of
    `REQUEST_DEADLINE`.
    """
    upstream_keep_alive: SecondsOrOff = 4.0
    """Seconds for which an idle connection to the upstream is used again; less than the upstream
    keeps it. 0: a new one for each call.
    """
    upstream_ca_file: Annotated[Path, AfterValidator(_file)] | None = None
    """PEM file of the authorities that may sign the upstream's certificate, in place of the
    system's.
    """
    upstream_client_cert: Annotated[Path, AfterValidator(_file)] | None = None
    """PEM file of the certificate that we show the upstream."""
    upstream_client_key: Annotated[Path, AfterValidator(_file)] | None = None
    """PEM file of its key, if it is not in the same file."""
    upstream_proxy: Annotated[str, AfterValidator(_proxy)] = ""
    """`http://…` address of a proxy on the way to the upstream; empty: none. `HTTP_PROXY` and the
    like are not read.
    """
    upstream_max_body: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Bytes of the largest upstream reply that is read."""
    upstream_concurrency: int = Field(default_factory=_concurrency, ge=1, le=65535)
    """Upstream calls under way at once; ten times as many may wait. Of a database, the connections
    of each process: 16, at most 100.
    """

    breaker_failures: int = Field(default=3, ge=1, le=10_000)
    """Failures of `addEvent` within `BREAKER_WINDOW` that open its circuit."""
    breaker_window: Seconds = 30.0
    """Seconds for which such a failure counts."""
    breaker_cooldown: Seconds = 10.0
    """Seconds that a circuit stays open before one canary is let through."""
    retry_attempts: int = Field(default=3, ge=1, le=10)
    """Attempts at a read, the first included; 1 turns retries off. Writes are never retried."""
    retry_budget: float = Field(default=0.1, ge=0, le=1)
    """Share of retries among the reads, beside a few; what is over it is not retried. 0: none."""
    single_flight: bool = True
    """Identical reads under way at the same time share one upstream call."""
    cache_ttl: LongSecondsOrOff = 0.0
    """Seconds for which a reply is served again without an upstream call; 0 turns it off."""
    stale_if_error: LongSecondsOrOff = 0.0
    """Seconds for which an expired reply stands in while the upstream fails; 0 turns it off."""

    rate_limit: Annotated[str, AfterValidator(_rate)] = ""
    """Requests that a client may send, such as `100/second` or `5000/hour`; empty turns it off."""
    api_key_header: Annotated[str, AfterValidator(_header_name)] = ""
    """Header that tells clients apart for the rate limit; empty means by address."""
    trusted_proxies: Annotated[
        list[Annotated[str, BeforeValidator(_network)]], NoDecode, BeforeValidator(_listed)
    ] = []
    """Addresses or networks of proxies that are believed about who a client is, with commas
    between them.
    """
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"], BeforeValidator(_lower)
    ] = "x-forwarded-for"
    """The header in which those proxies name the client: `X-Forwarded-For` (with
    `X-Forwarded-Proto`) or `Forwarded`. The other one is ignored.
    """
    keep_alive: Seconds = 75.0
    """Seconds for which an idle connection of a client stays open; more than a proxy in front
    keeps it.
    """
    drain: SecondsOrOff = 0.0
    """Seconds after SIGTERM in which new connections are still taken, while `/readyz` says no."""
    max_in_flight: int = Field(default=4096, ge=1)
    """Requests in hand at once; what is over it is refused with 503."""
    cors_origins: Annotated[
        list[str], NoDecode, BeforeValidator(_listed), AfterValidator(_origins)
    ] = []
    """Web origins that may call from a browser, with commas between them."""

    outbox_url: Annotated[str, AfterValidator(_database_or_off)] = ""
    """Where events wait for the upstream that were sent with `Prefer: respond-async`:
    `sqlite:///relative`, `sqlite:////absolute` or `postgresql://…`; empty: no outbox.
    """
    outbox_limit: int = Field(default=100_000, ge=1, le=1_000_000_000)
    """Events that may wait; above it new ones are refused with 503."""
    outbox_give_up: LongSeconds = 259_200.0
    """Seconds after which an event that could not be delivered is given up."""
    outbox_keep: LongSecondsOrOff = 86_400.0
    """Seconds for which a delivered event can be asked for; others for 30 days."""

    cluster_url: Annotated[str, AfterValidator(_redis)] = ""
    """Redis or Valkey through which several servers share circuits and rate limits: `redis://…`
    or `rediss://…`; empty: alone.
    """
    cluster_name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9._-]{1,64}\z")] = "event-service"
    """Servers with the same name act as one."""
    cluster_quorum: int = Field(default=1, ge=1, le=1000)
    """Servers that must see failures before a circuit opens for all."""

    ops_token: Annotated[SecretStr, AfterValidator(_token)] | None = None
    """Bearer token of operators, at least 16 characters; without one, production has no
    `/metrics` and no `/dashboard`.
    """
    dashboard_controls: bool = False
    """The dashboard may trip, isolate and reset breakers in production, as it may elsewhere.

    Never with several workers: each has breakers of its own.
    """
    slow_request: Seconds = 1.0
    """Seconds after which a request is logged as slow."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum log level."""
    log_format: Literal["json", "console", "auto"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere."""

    @field_validator("upstream_url")
    @classmethod
    def _is_a_base_address(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            if info.data.get("env") is Environment.PRODUCTION:
                raise ValueError("required in production")
            return DEVELOPMENT_UPSTREAM
        if is_database(value):
            return _database(value)
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError("must be an absolute http:// or https:// address")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials; send them with UPSTREAM_HEADERS")
        if parts.query or parts.fragment:
            raise ValueError("must not hold a query or a fragment")
        return value.rstrip("/")

    @field_validator("upstream_timeout")
    @classmethod
    def _is_below_the_deadline(cls, value: float, info: ValidationInfo) -> float:
        deadline = info.data.get("request_deadline", _Default())
        if value >= deadline and not isinstance(deadline, _Default):
            raise ValueError(f"must be below {PREFIX}REQUEST_DEADLINE, which is {deadline:g}")
        return value

    @field_validator(
        "upstream_headers",
        "upstream_paths",
        "upstream_keep_alive",
        "upstream_ca_file",
        "upstream_client_cert",
        "upstream_client_key",
        "upstream_proxy",
        "upstream_max_body",
        "outbox_url",
    )
    @classmethod
    def _means_something_here(cls, value: Any, info: ValidationInfo) -> Any:
        if value and is_database(info.data.get("upstream_url", "")):
            raise ValueError(f"means nothing where {PREFIX}UPSTREAM_URL is a database")
        return value

    @field_validator("upstream_concurrency")
    @classmethod
    def _is_what_a_database_takes(cls, value: int, info: ValidationInfo) -> int:
        database = is_database(info.data.get("upstream_url", ""))
        if database and value > MAX_DATABASE_CONCURRENCY:
            raise ValueError(
                f"{value} calls at once are for HTTP; for a database these are connections of "
                f"each process, at most {MAX_DATABASE_CONCURRENCY}"
            )
        return value

    @field_validator("upstream_client_key")
    @classmethod
    def _has_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value and info.data.get("upstream_client_cert", value) is None:
            raise ValueError(f"needs {PREFIX}UPSTREAM_CLIENT_CERT beside it")
        return value

    def masked(self) -> dict[str, Any]:
        """The effective values by variable name, ready to print; secrets read `**********`."""
        shown = self.model_dump(mode="json")
        for name in WITH_CREDENTIALS:
            shown[name] = hide_credentials(shown[name])
        return {PREFIX + name.upper(): value for name, value in shown.items()}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.masked().items()


def load_settings(env_file: str = ".env") -> Settings:
    """The settings that the environment describes; in development also those in `env_file`.

    Raises ConfigurationError with one line for each wrong or unknown variable.
    """
    in_development = os.environ.get(PREFIX + "ENV", "development") in {"", "development"}
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = {*os.environ, *(dotenv_values(env_file) if in_development else ())}
    faults = [
        f"{name}: unknown variable"
        for name in sorted(named)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]
    try:
        settings = Settings(_env_file=env_file if in_development else None)
    except ValidationError as error:
        faults += [
            _fault(dict(details))
            for details in error.errors(include_input=False)
            # A default that follows from a value that is at fault itself.
            if details["type"] != "default_factory_not_called"
        ]
    if faults:
        raise ConfigurationError("\n".join(["The configuration is wrong:", *faults]))
    return settings


def _fault(details: dict[str, Any]) -> str:
    variable = PREFIX + str(details["loc"][0]).upper()
    return f"{variable}: {details['msg'].removeprefix('Value error, ').removeprefix('Input ')}"

"""Everything configurable, validated once at start."""

import json
import os
import re
from enum import StrEnum
from ipaddress import ip_network
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


class ConfigurationError(Exception):
    """The environment does not describe a service that could start; the text lists every fault."""


class Environment(StrEnum):
    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"


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
    for operation, template in value.items():
        default = UPSTREAM_PATHS.get(operation)
        if default is None:
            raise ValueError(f"{operation} is not one of {', '.join(UPSTREAM_PATHS)}")
        if not template.startswith("/"):
            raise ValueError(f"the path of {operation} must begin with '/'")
        ids = default.count("{id}")
        if template.count("{id}") != ids or "{" in template.replace("{id}", ""):
            wanted = "exactly one {id}" if ids else "no placeholder"
            raise ValueError(f"the path of {operation} must have {wanted}")
    return UPSTREAM_PATHS | value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrOff = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Read from `EVENT_SERVICE_*` variables. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
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

    upstream_url: str = Field(default="", validate_default=True)
    """Base address of the events API; required in production."""
    upstream_headers: Annotated[
        dict[str, SecretStr], NoDecode, BeforeValidator(_json_object), AfterValidator(_headers)
    ] = {}
    """Sent with every upstream call, as a JSON object. For credentials."""
    upstream_paths: Annotated[
        dict[str, str], NoDecode, BeforeValidator(_json_object), AfterValidator(_paths)
    ] = UPSTREAM_PATHS
    """Paths of an upstream that differ, as a JSON object from operation to template."""
    upstream_timeout: Seconds = 2.0
    """Seconds that one attempt at the upstream may take."""
    upstream_max_body: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Bytes of the largest upstream reply that is read."""
    upstream_concurrency: int = Field(default=1024, ge=1, le=65535)
    """Upstream calls under way at once; ten times as many may wait."""
    request_deadline: Seconds = 5.0
    """Seconds that a request may take, with everything that it waits for."""

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
    cache_ttl: SecondsOrOff = 0.0
    """Seconds for which a reply is served again without an upstream call; 0 turns it off."""
    stale_if_error: SecondsOrOff = 0.0
    """Seconds for which an expired reply stands in while the upstream fails; 0 turns it off."""

    rate_limit: Annotated[str, AfterValidator(_rate)] = ""
    """Requests that a client may send, such as `100/second` or `5000/hour`; empty turns it off."""
    api_key_header: Annotated[str, AfterValidator(_header_name)] = ""
    """Header that tells clients apart for the rate limit; empty means by address."""
    trusted_proxies: Annotated[
        list[Annotated[str, BeforeValidator(_network)]], NoDecode, BeforeValidator(_listed)
    ] = []
    """Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` are believed, with
    commas between them.
    """
    max_in_flight: int = Field(default=4096, ge=1)
    """Requests in hand at once; what is over it is refused with 503."""
    cors_origins: Annotated[
        list[str], NoDecode, BeforeValidator(_listed), AfterValidator(_origins)
    ] = []
    """Web origins that may call from a browser, with commas between them."""

    ops_token: SecretStr | None = None
    """Bearer token of operators; without one, production has no `/metrics` and no `/dashboard`."""
    dashboard_controls: bool = False
    """The dashboard may trip, isolate and reset breakers in production, as it may elsewhere.

    Never with several workers: each has breakers of its own.
    """
    slow_request: Seconds = 1.0
    """Seconds after which a request is logged as slow."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe of what is logged."""
    log_format: Literal["json", "console", "auto"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere."""

    @field_validator("upstream_url")
    @classmethod
    def _is_a_base_address(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            if info.data.get("env") is Environment.PRODUCTION:
                raise ValueError("required in production")
            return DEVELOPMENT_UPSTREAM
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError("must be an absolute http:// or https:// address")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials; send them with UPSTREAM_HEADERS")
        if parts.query or parts.fragment:
            raise ValueError("must not hold a query or a fragment")
        return value.rstrip("/")

    def masked(self) -> dict[str, Any]:
        """The effective values by variable name, ready to print; secrets read `**********`."""
        return {PREFIX + name.upper(): v for name, v in self.model_dump(mode="json").items()}


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
        faults += [_fault(dict(details)) for details in error.errors(include_input=False)]
    if faults:
        raise ConfigurationError("\n".join(["The configuration is wrong:", *faults]))
    return settings


def _fault(details: dict[str, Any]) -> str:
    variable = PREFIX + str(details["loc"][0]).upper()
    return f"{variable}: {details['msg'].removeprefix('Value error, ').removeprefix('Input ')}"

"""Everything configurable, validated once at start."""

import json
import os
import re
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import limits
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
        try:
            rates = limits.parse_many(value)
        except ValueError:
            rates = []
        if not rates or any(rate.amount < 1 for rate in rates):
            raise ValueError("must be a rate such as 100/second, or several: 100/second;5000/hour")
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
    )

    env: Environment = Environment.DEVELOPMENT
    host: str = "127.0.0.1"
    port: int = Field(default=3000, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=64)

    upstream_url: str = Field(default="", validate_default=True)
    upstream_headers: Annotated[
        dict[str, SecretStr], NoDecode, BeforeValidator(_json_object), AfterValidator(_headers)
    ] = {}
    upstream_paths: Annotated[
        dict[str, str], NoDecode, BeforeValidator(_json_object), AfterValidator(_paths)
    ] = UPSTREAM_PATHS
    upstream_timeout: Seconds = 2.0
    upstream_max_body: int = Field(default=8 * 1024 * 1024, ge=1024)
    upstream_concurrency: int = Field(default=1024, ge=1, le=65535)
    request_deadline: Seconds = 5.0

    breaker_failures: int = Field(default=3, ge=1, le=10_000)
    breaker_window: Seconds = 30.0
    breaker_cooldown: Seconds = 10.0
    retry_attempts: int = Field(default=3, ge=1, le=10)
    retry_budget: float = Field(default=0.1, ge=0, le=1)
    single_flight: bool = True
    cache_ttl: SecondsOrOff = 0.0
    stale_if_error: SecondsOrOff = 0.0

    rate_limit: Annotated[str, AfterValidator(_rate)] = ""
    api_key_header: Annotated[str, AfterValidator(_header_name)] = ""
    trusted_proxies: Annotated[
        list[Annotated[str, BeforeValidator(_network)]], NoDecode, BeforeValidator(_listed)
    ] = []
    max_in_flight: int = Field(default=4096, ge=1)
    cors_origins: Annotated[
        list[str], NoDecode, BeforeValidator(_listed), AfterValidator(_origins)
    ] = []

    ops_token: SecretStr | None = None
    dashboard_controls: bool = False
    slow_request: Seconds = 1.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console", "auto"] = "auto"

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

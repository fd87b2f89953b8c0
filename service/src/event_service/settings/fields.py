"""All settings, validated once at start."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from event_service.libs.credentials import HIDDEN, hide_credentials
from event_service.libs.env_file import env_line
from event_service.libs.http_client import tls_context
from event_service.settings import values
from event_service.settings.faults import as_text, variable
from event_service.settings.sources import Variables
from event_service.settings.values import UPSTREAM_PATHS, is_database

DEVELOPMENT_UPSTREAM = "http://127.0.0.1:4010"
UPSTREAM_TIMEOUT = 2.0
WITH_CREDENTIALS = ("upstream_url", "upstream_proxy", "outbox_url", "cluster_url")
NOT_FOR_DATABASES = (
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
HTTP_CONCURRENCY = 1024
DATABASE_CONCURRENCY = 16
# PostgreSQL allows 100 connections by default, and several processes share them.
MAX_DATABASE_CONCURRENCY = 100
# Share of the request's deadline that an attempt may take, unless its own limit is set.
ATTEMPT_SHARE = 0.9


class _Default(float):
    """Marks a value as a default, to tell it from the same value set explicitly."""


class Environment(StrEnum):
    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"


def _concurrency(data: dict[str, Any]) -> int:
    return DATABASE_CONCURRENCY if is_database(data["upstream_url"]) else HTTP_CONCURRENCY


def _attempt(data: dict[str, Any]) -> float:
    deadline: float = data["request_deadline"]
    return min(UPSTREAM_TIMEOUT, ATTEMPT_SHARE * deadline)


# A day. Larger values are mistakes, and far larger ones overflow clocks and selectors.
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrOff = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
# A year, for what is kept rather than waited for.
LongSeconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
LongSecondsOrOff = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Read from `EVENT_SERVICE_*` variables. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    env: Environment = Environment.DEVELOPMENT
    """`production` requires `UPSTREAM_URL`, ignores `.env`, and asks operators for the token.
    `testing` ignores `.env`. Neither can be chosen in `.env`.
    """
    host: Annotated[str, AfterValidator(values.host)] = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=3000, ge=1, le=65535)
    """Port to listen on."""
    workers: int = Field(default=1, ge=1, le=64)
    """Worker processes, about one per core. Each has its own breakers, limits and cache."""

    request_deadline: Seconds = _Default(5.0)
    """Seconds that a request may take, including all waiting."""

    upstream_url: str = Field(default="", validate_default=True)
    """Base URL of the events API, required in production. With `sqlite:///relative`,
    `sqlite:////absolute` or `postgresql://…`, that database stores users and events instead.
    """
    upstream_headers: Annotated[
        dict[str, SecretStr],
        NoDecode,
        BeforeValidator(values.json_object),
        AfterValidator(values.headers),
    ] = {}
    """Headers sent with every upstream call, as a JSON object; for credentials."""
    upstream_paths: Annotated[
        dict[str, str], NoDecode, BeforeValidator(values.json_object), AfterValidator(values.paths)
    ] = UPSTREAM_PATHS
    """The upstream's paths that differ from the defaults, as a JSON object from operation to
    template. Set `getEventsByUserId` if the upstream returns all events of a user in one call.
    """
    upstream_timeout: Seconds = Field(default_factory=_attempt)
    """Seconds that one upstream attempt may take. The default is at most 0.9 of
    `REQUEST_DEADLINE`.
    """
    upstream_keep_alive: SecondsOrOff = 4.0
    """Seconds for which an idle connection to the upstream is reused; must be shorter than the
    upstream keeps it open. 0: a new connection for each call.
    """
    upstream_ca_file: Annotated[Path, AfterValidator(values.ca_file)] | None = None
    """PEM file with the certificate authorities for the upstream's certificate, instead of the
    system's.
    """
    upstream_client_cert: Annotated[Path, AfterValidator(values.file)] | None = None
    """PEM file with the client certificate for the upstream."""
    upstream_client_key: Annotated[Path, AfterValidator(values.file)] | None = None
    """PEM file with the client certificate's key, if it is not in the same file."""
    upstream_proxy: Annotated[str, AfterValidator(values.proxy)] = ""
    """URL of a proxy for upstream calls, `http://…`; empty: none. `HTTP_PROXY` and similar
    variables are ignored.
    """
    upstream_max_body: int = Field(default=8 * 1024 * 1024, ge=1024, le=1024**3)
    """Largest upstream reply, in bytes."""
    upstream_concurrency: int = Field(default_factory=_concurrency, ge=1, le=65535)
    """Limit for concurrent upstream calls; ten times as many may wait. With a database, the number
    of connections of each process: 16, at most 100.
    """

    breaker_failures: int = Field(default=3, ge=1, le=10_000)
    """Failures of `addEvent` within `BREAKER_WINDOW` that open its circuit."""
    breaker_window: Seconds = 30.0
    """Seconds for which such a failure counts."""
    breaker_cooldown: Seconds = 10.0
    """Seconds for which a circuit stays open before it admits one canary."""
    retry_attempts: int = Field(default=3, ge=1, le=10)
    """Attempts of a read, including the first; 1 turns retries off. Writes are never retried."""
    retry_budget: float = Field(default=0.1, ge=0, le=1)
    """Retries allowed as a fraction of reads, plus 10 every 10 s. 0 turns retries off."""
    single_flight: bool = True
    """Concurrent identical reads share one upstream call."""
    cache_ttl: LongSecondsOrOff = 0.0
    """Seconds for which a reply is served from the cache; 0 turns the cache off."""
    stale_if_error: LongSecondsOrOff = 0.0
    """Seconds for which an expired reply is served while the upstream fails; 0 turns it off."""

    rate_limit: Annotated[str, AfterValidator(values.rate)] = ""
    """Rate limit for each client, such as `100/second` or `5000/hour`; empty turns it off."""
    api_key_header: Annotated[str, AfterValidator(values.header_name)] = ""
    """Header with a client's API key, which identifies it for the rate limit; empty: its address
    does. An address can introduce only as many keys as it may send requests.
    """
    trusted_proxies: Annotated[
        list[Annotated[str, BeforeValidator(values.network)]],
        NoDecode,
        BeforeValidator(values.listed),
    ] = []
    """Addresses or networks of trusted proxies, separated by commas."""
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"], BeforeValidator(values.lower)
    ] = "x-forwarded-for"
    """The header in which the trusted proxies name the client: `X-Forwarded-For` (with
    `X-Forwarded-Proto`) or `Forwarded`. The other one is ignored.
    """
    keep_alive: Seconds = 75.0
    """Seconds for which an idle client connection stays open; must be longer than a proxy in front
    keeps it open.
    """
    drain: SecondsOrOff = 0.0
    """Seconds after SIGTERM during which new connections are accepted while `/readyz` says 503."""
    max_in_flight: int = Field(default=4096, ge=1, le=1_000_000)
    """Limit for requests in flight; further ones are refused with 503."""
    cors_origins: Annotated[
        list[str], NoDecode, BeforeValidator(values.listed), AfterValidator(values.origins)
    ] = []
    """Web origins whose pages may call the API, separated by commas."""

    outbox_url: Annotated[str, AfterValidator(values.database_or_off)] = ""
    """Database for events sent with `Prefer: respond-async`, until they are delivered:
    `sqlite:///relative`, `sqlite:////absolute` or `postgresql://…`; empty: no outbox.
    """
    outbox_limit: int = Field(default=100_000, ge=1, le=1_000_000_000)
    """Limit for queued events; further ones are refused with 503."""
    outbox_give_up: LongSeconds = 259_200.0
    """Seconds after which an undelivered event is given up."""
    outbox_keep: LongSecondsOrOff = 86_400.0
    """Seconds for which a delivered event is kept; refused and dead ones are kept for 30 days."""

    cluster_url: Annotated[str, AfterValidator(values.redis)] = ""
    """Redis or Valkey through which several servers share circuits and rate limits: `redis://…`
    or `rediss://…`; empty: no cluster.
    """
    cluster_name: Annotated[str, AfterValidator(values.cluster_name)] = "event-service"
    """Name of the cluster; servers with the same name belong to it."""
    cluster_quorum: int = Field(default=1, ge=1, le=1000)
    """Number of nodes (workers) that must see failures before a circuit opens for all."""

    ops_token: Annotated[SecretStr, AfterValidator(values.token)] | None = None
    """Operators' bearer token, at least 16 characters. Without one, production has no `/metrics`
    and no `/dashboard`.
    """
    dashboard_controls: bool = False
    """Enable the dashboard's controls in production, where they are off by default: trip, isolate
    and reset breakers, retry and drop the outbox's deliveries.
    """
    runbook_url: Annotated[str, AfterValidator(values.page)] = ""
    """URL of your own run-book, to whose sections (`#…`) the dashboard links. Empty: the built-in
    one at `/dashboard/runbook`.
    """
    grafana_url: Annotated[str, AfterValidator(values.page)] = ""
    """URL of the Grafana dashboard, to which the dashboard links; empty: no link."""
    trace_url: Annotated[str, AfterValidator(values.page_of_trace)] = ""
    """URL of a trace, with `{trace_id}` in it; the dashboard's trace ids link there. Empty: no
    link.
    """
    slow_request: Seconds = 1.0
    """Seconds after which a request is logged as slow."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum log level."""
    log_format: Literal["json", "console", "auto"] = "auto"
    """`auto` means `console` on a terminal, otherwise `json`."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        # Otherwise neither files nor messages could contain it.
        if isinstance(value, str) and not values.is_utf_8(value):
            raise ValueError("must be text in UTF-8")
        return value

    @field_validator("upstream_url")
    @classmethod
    def _is_a_base_address(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            if info.data.get("env") is Environment.PRODUCTION:
                raise ValueError("required in production")
            return DEVELOPMENT_UPSTREAM
        if is_database(value):
            return values.database(value)
        return values.base_url(value)

    @field_validator("upstream_timeout")
    @classmethod
    def _is_below_the_deadline(cls, value: float, info: ValidationInfo) -> float:
        deadline = info.data.get("request_deadline", _Default())
        if value >= deadline and not isinstance(deadline, _Default):
            raise ValueError(f"must be below {variable('request_deadline')}, which is {deadline:g}")
        return value

    @field_validator(*NOT_FOR_DATABASES)
    @classmethod
    def _means_something_here(cls, value: Any, info: ValidationInfo) -> Any:
        if value and is_database(info.data.get("upstream_url", "")):
            raise ValueError(f"means nothing where {variable('upstream_url')} is a database")
        return value

    @field_validator("upstream_concurrency")
    @classmethod
    def _is_what_a_database_takes(cls, value: int, info: ValidationInfo) -> int:
        database = is_database(info.data.get("upstream_url", ""))
        if database and value > MAX_DATABASE_CONCURRENCY:
            raise ValueError(
                "so many calls at once are for HTTP; to a database these are the connections of "
                f"each process, at most {MAX_DATABASE_CONCURRENCY}"
            )
        return value

    @field_validator("upstream_client_key")
    @classmethod
    def _has_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value and info.data.get("upstream_client_cert", value) is None:
            raise ValueError(f"needs {variable('upstream_client_cert')} beside it")
        return value

    @model_validator(mode="after")
    def _tls_can_be_had(self) -> Self:
        if self.upstream_url.startswith("https:") or self.upstream_client_cert:
            tls_context(
                ca_file=self.upstream_ca_file,
                cert=self.upstream_client_cert,
                key=self.upstream_client_key,
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Variables(settings_cls)

    def masked(self) -> dict[str, Any]:
        """The effective values by variable name, ready to print; secrets read `**********`."""
        shown = self.model_dump(mode="json")
        for name in WITH_CREDENTIALS:
            # An HTTP API's address has no credentials, but its path may contain an @.
            if name != "upstream_url" or is_database(self.upstream_url):
                shown[name] = hide_credentials(shown[name])
        return {variable(name): value for name, value in shown.items()}

    def env_lines(self) -> Iterator[str]:
        """The effective values as lines for a `.env` file.

        Secrets, settings without effect here, an environment that cannot be chosen in such a file,
        and a default deadline that a timeout exceeds are commented out.
        """
        for (name, value), field in zip(
            self.masked().items(), type(self).model_fields, strict=True
        ):
            text = as_text(value)
            line = env_line(name, text)
            unfit = (
                HIDDEN in text
                or (field in NOT_FOR_DATABASES and is_database(self.upstream_url))
                or (field == "env" and self.env is not Environment.DEVELOPMENT)
                # Then it is the default: where both are set, such a timeout is refused.
                or (field == "request_deadline" and self.upstream_timeout >= self.request_deadline)
            )
            yield f"# {line}" if unfit else line

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.masked().items()

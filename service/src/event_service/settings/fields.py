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
    """Processes. Each has breakers, limits and a cache of its own; about one for each core."""

    request_deadline: Seconds = _Default(5.0)
    """Seconds that a request may take, with everything that it waits for."""

    upstream_url: str = Field(default="", validate_default=True)
    """Base address of the events API, required in production; or `sqlite:///relative`,
    `sqlite:////absolute` or `postgresql://…`: then that database holds users and events.
    """
    upstream_headers: Annotated[
        dict[str, SecretStr],
        NoDecode,
        BeforeValidator(values.json_object),
        AfterValidator(values.headers),
    ] = {}
    """Sent with every upstream call, as a JSON object. For credentials."""
    upstream_paths: Annotated[
        dict[str, str], NoDecode, BeforeValidator(values.json_object), AfterValidator(values.paths)
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
    upstream_ca_file: Annotated[Path, AfterValidator(values.ca_file)] | None = None
    """PEM file of the authorities that may sign the upstream's certificate, in place of the
    system's.
    """
    upstream_client_cert: Annotated[Path, AfterValidator(values.file)] | None = None
    """PEM file of the certificate that we show the upstream."""
    upstream_client_key: Annotated[Path, AfterValidator(values.file)] | None = None
    """PEM file of its key, if it is not in the same file."""
    upstream_proxy: Annotated[str, AfterValidator(values.proxy)] = ""
    """`http://…` address of a proxy on the way to the upstream; empty: none. `HTTP_PROXY` and the
    like are not read.
    """
    upstream_max_body: int = Field(default=8 * 1024 * 1024, ge=1024, le=1024**3)
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
    """Retries allowed as a fraction of reads, plus 10 every 10 s. 0 turns retries off."""
    single_flight: bool = True
    """Identical reads under way at the same time share one upstream call."""
    cache_ttl: LongSecondsOrOff = 0.0
    """Seconds for which a reply is served again without an upstream call; 0 turns it off."""
    stale_if_error: LongSecondsOrOff = 0.0
    """Seconds for which an expired reply stands in while the upstream fails; 0 turns it off."""

    rate_limit: Annotated[str, AfterValidator(values.rate)] = ""
    """Requests that a client may send, such as `100/second` or `5000/hour`; empty turns it off."""
    api_key_header: Annotated[str, AfterValidator(values.header_name)] = ""
    """Header that tells clients apart for the rate limit; empty means by address."""
    trusted_proxies: Annotated[
        list[Annotated[str, BeforeValidator(values.network)]],
        NoDecode,
        BeforeValidator(values.listed),
    ] = []
    """Addresses or networks of proxies that are believed about who a client is, with commas
    between them.
    """
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"], BeforeValidator(values.lower)
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
    max_in_flight: int = Field(default=4096, ge=1, le=1_000_000)
    """Requests in hand at once; what is over it is refused with 503."""
    cors_origins: Annotated[
        list[str], NoDecode, BeforeValidator(values.listed), AfterValidator(values.origins)
    ] = []
    """Web origins that may call from a browser, with commas between them."""

    outbox_url: Annotated[str, AfterValidator(values.database_or_off)] = ""
    """Where events wait for the upstream that were sent with `Prefer: respond-async`:
    `sqlite:///relative`, `sqlite:////absolute` or `postgresql://…`; empty: no outbox.
    """
    outbox_limit: int = Field(default=100_000, ge=1, le=1_000_000_000)
    """Events that may wait; above it new ones are refused with 503."""
    outbox_give_up: LongSeconds = 259_200.0
    """Seconds after which an event that could not be delivered is given up."""
    outbox_keep: LongSecondsOrOff = 86_400.0
    """Seconds for which a delivered event can be asked for; others for 30 days."""

    cluster_url: Annotated[str, AfterValidator(values.redis)] = ""
    """Redis or Valkey through which several servers share circuits and rate limits: `redis://…`
    or `rediss://…`; empty: alone.
    """
    cluster_name: Annotated[str, AfterValidator(values.cluster_name)] = "event-service"
    """Servers with the same name act as one."""
    cluster_quorum: int = Field(default=1, ge=1, le=1000)
    """Servers that must see failures before a circuit opens for all."""

    ops_token: Annotated[SecretStr, AfterValidator(values.token)] | None = None
    """Bearer token of operators, at least 16 characters; without one, production has no
    `/metrics` and no `/dashboard`.
    """
    dashboard_controls: bool = False
    """The dashboard may trip, isolate and reset breakers, and retry and drop what is in the outbox,
    in production, as it may elsewhere.
    """
    runbook_url: Annotated[str, AfterValidator(values.page)] = ""
    """Address of your own run-book, to whose sections (`#…`) the dashboard links. Empty: the
    service's own, at `/dashboard/runbook`.
    """
    grafana_url: Annotated[str, AfterValidator(values.page)] = ""
    """Address of the Grafana dashboard, to which the dashboard links; empty: none."""
    trace_url: Annotated[str, AfterValidator(values.page_of_trace)] = ""
    """Address of a trace with `{trace_id}` in it; the dashboard's trace ids link there.
    Empty: no link.
    """
    slow_request: Seconds = 1.0
    """Seconds after which a request is logged as slow."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum log level."""
    log_format: Literal["json", "console", "auto"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        # What it is not, neither files nor messages can have in them.
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

        Secrets, settings without effect here, and an environment that cannot be chosen in such a
        file are commented out.
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
            )
            yield f"# {line}" if unfit else line

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.masked().items()

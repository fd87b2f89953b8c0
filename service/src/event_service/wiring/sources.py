"""Builds the source of events that the settings name, and its HTTP client."""

import ssl
from collections.abc import Callable, Mapping

from event_service.libs.http_client import (
    HttpClient,
    parse_base_url,
    parse_proxy_url,
    tls_context,
)
from event_service.settings import ConfigurationError, Settings
from event_service.sources.guarded import Source
from event_service.sources.http_events import HttpEvents, Trace
from event_service.wiring.lifetimes import Lifetimes


def build_source(settings: Settings, *, trace: Trace | None, lifetimes: Lifetimes) -> Source:
    """The source for the scheme of UPSTREAM_URL."""
    match settings.upstream_url.partition(":")[0]:
        case "http" | "https":
            source = build_http_events(settings, trace=trace)
            lifetimes.closers.append(source.close)
            return source
        case "sqlite" | "postgresql" | "postgres":
            # Imported only if needed.
            from event_service.sources.databases import build_database  # noqa: PLC0415

            database = build_database(
                settings.upstream_url,
                connections=settings.upstream_concurrency,
                timeout=settings.upstream_timeout,
            )
            lifetimes.openers.append(database.open)
            lifetimes.closers.append(database.close)
            return database
        case scheme:
            raise ConfigurationError(f"EVENT_SERVICE_UPSTREAM_URL: no source speaks {scheme}")


def build_http_events(
    settings: Settings,
    *,
    trace: Trace | None = None,
    on_body: Callable[[bytes], None] | None = None,
) -> HttpEvents:
    secrets = settings.upstream_headers
    headers = {name: secret.get_secret_value() for name, secret in secrets.items()}
    return HttpEvents(
        build_client(settings, headers),
        url=settings.upstream_url,
        paths=settings.upstream_paths,
        time_limit=settings.upstream_timeout,
        trace=trace,
        on_body=on_body,
    )


def build_client(settings: Settings, headers: Mapping[str, str]) -> HttpClient:
    """The client for the upstream. Raises ConfigurationError for files that cannot be used."""
    url = parse_base_url(settings.upstream_url)
    known = {name.lower() for name in headers}
    usual = {"accept": "application/json", "user-agent": "event-service"}
    try:
        tls = build_tls(settings) if url.scheme == "https" else None
    except ValueError as exc:
        raise ConfigurationError(f"EVENT_SERVICE_UPSTREAM_URL: {exc}") from None
    return HttpClient(
        url,
        headers={name: usual[name] for name in usual.keys() - known} | dict(headers),
        connections=settings.upstream_concurrency,
        keep_alive=settings.upstream_keep_alive,
        # Shorter than an attempt, so that the log can tell an unreachable address from a slow
        # reply.
        connect_timeout=settings.upstream_timeout / 2,
        max_body=settings.upstream_max_body,
        tls=tls,
        proxy=parse_proxy_url(settings.upstream_proxy) if settings.upstream_proxy else None,
    )


def build_tls(settings: Settings) -> ssl.SSLContext:
    return tls_context(
        ca_file=settings.upstream_ca_file,
        cert=settings.upstream_client_cert,
        key=settings.upstream_client_key,
    )

"""All settings, validated once at start."""

from event_service.settings.faults import PREFIX
from event_service.settings.fields import (
    DATABASE_CONCURRENCY,
    HTTP_CONCURRENCY,
    UPSTREAM_TIMEOUT,
    Environment,
    Settings,
)
from event_service.settings.loading import ConfigurationError, load_settings
from event_service.settings.values import is_database

__all__ = [
    "DATABASE_CONCURRENCY",
    "HTTP_CONCURRENCY",
    "PREFIX",
    "UPSTREAM_TIMEOUT",
    "ConfigurationError",
    "Environment",
    "Settings",
    "is_database",
    "load_settings",
]

"""Everything configurable, validated once at start."""

from event_service.settings.faults import PREFIX
from event_service.settings.fields import (
    DATABASE_CONCURRENCY,
    HTTP_CONCURRENCY,
    UPSTREAM_TIMEOUT,
    WORKERS_DIR,
    Environment,
    Settings,
)
from event_service.settings.loading import ConfigurationError, load_settings

__all__ = [
    "DATABASE_CONCURRENCY",
    "HTTP_CONCURRENCY",
    "PREFIX",
    "UPSTREAM_TIMEOUT",
    "WORKERS_DIR",
    "ConfigurationError",
    "Environment",
    "Settings",
    "load_settings",
]

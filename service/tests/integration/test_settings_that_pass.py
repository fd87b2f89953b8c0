"""What the check of the settings lets pass is what the service starts with."""

import random
from pathlib import Path

import pytest

from event_service.settings import ConfigurationError, load_settings

from .conftest import serving

pytestmark = pytest.mark.anyio

# The ends of what each setting may be, and its odd forms; none of them needs another machine.
POSSIBLE = {
    "ENV": ["development", "testing", "production"],
    "REQUEST_DEADLINE": ["0.5", "86400"],
    "UPSTREAM_URL": ["http://a", "HTTPS://a.b:1/%20", "http://[::1]:9/x/", "sqlite:///events.db"],
    "UPSTREAM_HEADERS": ["{}", '{"authorization":"Bearer x","x":""}'],
    "UPSTREAM_PATHS": ['{"getEventsByUserId":"/e?u={id}"}', '{"getUserById":"/{id}.json"}'],
    "UPSTREAM_TIMEOUT": ["1e-9", "2", "80000"],
    "UPSTREAM_KEEP_ALIVE": ["0", "86400"],
    "UPSTREAM_PROXY": ["http://p", "http://u:p%20@p:1", "HTTP://[::1]:3128/"],
    "UPSTREAM_MAX_BODY": ["1024", "1073741824"],
    "UPSTREAM_CONCURRENCY": ["1", "100", "65535"],
    "BREAKER_FAILURES": ["1", "10000"],
    "BREAKER_WINDOW": ["1e-9", "86400"],
    "BREAKER_COOLDOWN": ["1e-9", "86400"],
    "RETRY_ATTEMPTS": ["1", "10"],
    "RETRY_BUDGET": ["0", "-0", "1"],
    "SINGLE_FLIGHT": ["off", "1"],
    "CACHE_TTL": ["0", "1e-9", "31536000"],
    "STALE_IF_ERROR": ["0", "1e-9", "31536000"],
    "RATE_LIMIT": ["1000/second", "1000000/second;50000/year", "500 per 2 minutes"],
    "API_KEY_HEADER": ["X-Key", "host"],
    "TRUSTED_PROXIES": ["0.0.0.0/0,::/0", "10.0.0.1"],
    "FORWARDED_HEADER": ["forwarded", "X-Forwarded-For"],
    "KEEP_ALIVE": ["1e-9", "86400"],
    "MAX_IN_FLIGHT": ["1", "1000000"],
    "CORS_ORIGINS": ["*", "https://a,http://b:1"],
    "OUTBOX_URL": ["sqlite:///outbox.db"],
    "OUTBOX_LIMIT": ["1", "1000000000"],
    "OUTBOX_GIVE_UP": ["1e-9", "31536000"],
    "OUTBOX_KEEP": ["0", "31536000"],
    "CLUSTER_URL": ["redis://127.0.0.1:1", "rediss://:pw@127.0.0.1:1/3"],
    "CLUSTER_QUORUM": ["1", "1000"],
    "OPS_TOKEN": ["x" * 16, "x" * 5000],
    "SLOW_REQUEST": ["1e-9", "86400"],
    "LOG_LEVEL": ["debug", "error"],
    "LOG_FORMAT": ["json", "console", "auto"],
}


@pytest.mark.parametrize("seed", range(16))
async def test_what_passes_the_check_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
):
    monkeypatch.chdir(tmp_path)
    chance = random.Random(seed)
    settings = None
    while settings is None:
        with monkeypatch.context() as environment:
            for name, values in POSSIBLE.items():
                if chance.random() < 0.4:
                    environment.setenv(f"EVENT_SERVICE_{name}", chance.choice(values))
            try:
                settings = load_settings()
            except ConfigurationError:
                continue  # these do not go together, as the check says
            async with serving(settings) as client:
                for path in ("/livez", "/readyz", "/", "/openapi.json"):
                    async with client.get(path) as reply:
                        assert reply.status == 200, path

import pytest

from event_service.settings import ConfigurationError, Settings, load_settings


@pytest.fixture(autouse=True)
def no_env_file(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def loaded(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> Settings:
    monkeypatch.setenv(f"EVENT_SERVICE_{name}", value)
    return load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT", "fast"),
        ("RATE_LIMIT", "0/second"),
        ("RATE_LIMIT", "5/second;"),
        ("RATE_LIMIT", "5/fortnight"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,*"),
        ("API_KEY_HEADER", "X Api Key"),
        ("API_KEY_HEADER", "X-Api-Key:"),
        ("CORS_ORIGINS", "*,https://app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/path"),
    ],
)
def test_a_wrong_value_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    with pytest.raises(ConfigurationError, match=f"EVENT_SERVICE_{name}: "):
        loaded(monkeypatch, name, value)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    settings = loaded(monkeypatch, "TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1,fd00::/8")

    assert settings.trusted_proxies == ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]


def test_several_rates_may_hold_at_once(monkeypatch: pytest.MonkeyPatch):
    settings = loaded(monkeypatch, "RATE_LIMIT", "100/second;5000/hour")

    assert settings.rate_limit == "100/second;5000/hour"


def test_of_itself_the_edge_limits_no_rate_and_trusts_nobody(monkeypatch: pytest.MonkeyPatch):
    settings = Settings()

    assert (settings.rate_limit, settings.api_key_header) == ("", "")
    assert (settings.trusted_proxies, settings.cors_origins) == ([], [])

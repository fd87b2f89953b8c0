from pathlib import Path

import pytest

from event_service.settings import ConfigurationError, Environment, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"EVENT_SERVICE_{name}", value)


def test_without_any_variable_the_service_is_ready_for_development():
    settings = load_settings()

    assert settings.env is Environment.DEVELOPMENT
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 3000, 1)
    assert settings.upstream_url == "http://127.0.0.1:4010"
    assert (settings.breaker_failures, settings.breaker_window) == (3, 30.0)
    assert settings.breaker_cooldown == 10.0


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    configure(
        monkeypatch,
        ENV="production",
        PORT="http",
        BREAKER_WINDOW="-1",
        UPSTREAM_TIMEOUT="nan",
        UPSTREAM_HEADERS="not json",
        RATE_LIMIT="often",
        COOLDOWN="10",
    )

    with pytest.raises(ConfigurationError) as refusal:
        load_settings()

    lines = str(refusal.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [
        "EVENT_SERVICE_COOLDOWN",
        "EVENT_SERVICE_PORT",
        "EVENT_SERVICE_UPSTREAM_URL",
        "EVENT_SERVICE_UPSTREAM_HEADERS",
        "EVENT_SERVICE_UPSTREAM_TIMEOUT",
        "EVENT_SERVICE_BREAKER_WINDOW",
        "EVENT_SERVICE_RATE_LIMIT",
    ]
    assert "EVENT_SERVICE_COOLDOWN: unknown variable" in lines
    assert "EVENT_SERVICE_UPSTREAM_URL: required in production" in lines


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, PORT="", RATE_LIMIT="", OPS_TOKEN="", UPSTREAM_HEADERS="", ENV="")

    settings = load_settings()

    assert settings.port == 3000
    assert settings.ops_token is None


def test_a_dotenv_file_is_read_in_development_alone(monkeypatch: pytest.MonkeyPatch):
    Path(".env").write_text("EVENT_SERVICE_PORT=3333\nSOMEBODY_ELSES=1\n")

    assert load_settings().port == 3333
    configure(monkeypatch, ENV="testing")
    assert load_settings().port == 3000


def test_the_environment_beats_the_dotenv_file(monkeypatch: pytest.MonkeyPatch):
    Path(".env").write_text("EVENT_SERVICE_PORT=3333\n")
    configure(monkeypatch, PORT="4444")

    assert load_settings().port == 4444


def test_an_unknown_variable_in_the_dotenv_file_is_refused():
    Path(".env").write_text("EVENT_SERVICE_PROT=3333\n")

    with pytest.raises(ConfigurationError, match="EVENT_SERVICE_PROT: unknown variable"):
        load_settings()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://upstream",
        "upstream:4010",
        "http://",
        "http://user:password@upstream",
        "http://upstream/?key=1",
        "http://upstream/#top",
        "http://upstream:99999999",
    ],
)
def test_an_impossible_upstream_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str):
    configure(monkeypatch, UPSTREAM_URL=url)

    with pytest.raises(ConfigurationError, match="EVENT_SERVICE_UPSTREAM_URL"):
        load_settings()


@pytest.mark.parametrize(
    ("paths", "complaint"),
    [
        ('{"getEvent":"/x"}', "not one of"),
        ('{"getUsers":"users"}', "begin with '/'"),
        ('{"getUserById":"/users"}', "exactly one {id}"),
        ('{"getUserById":"/users/{id}/{id}"}', "exactly one {id}"),
        ('{"getUsers":"/users/{id}"}', "no placeholder"),
        ('{"getUsers":"/users/{name}"}', "no placeholder"),
        ("[]", "JSON object"),
        ('{"getUsers":1}', "string"),
    ],
)
def test_impossible_upstream_paths_are_refused(
    monkeypatch: pytest.MonkeyPatch, paths: str, complaint: str
):
    configure(monkeypatch, UPSTREAM_PATHS=paths)

    with pytest.raises(ConfigurationError, match="EVENT_SERVICE_UPSTREAM_PATHS") as refusal:
        load_settings()

    assert complaint in str(refusal.value)


def test_paths_not_named_keep_their_default(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, UPSTREAM_PATHS='{"getUserById":"/v2/users/{id}.json"}')

    paths = load_settings().upstream_paths

    assert paths["getUserById"] == "/v2/users/{id}.json"
    assert paths["getUsers"] == "/getUsers"


def test_secrets_are_masked_whenever_settings_are_shown(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, OPS_TOKEN="hush-1", UPSTREAM_HEADERS='{"authorization":"Bearer hush-2"}')

    settings = load_settings()

    assert settings.masked()["EVENT_SERVICE_UPSTREAM_HEADERS"] == {"authorization": "**********"}
    assert "hush" not in repr(settings) + str(settings) + str(settings.masked())


@pytest.mark.parametrize("value", ["line\\nbreak", "caf\\u00e9"])
def test_a_header_that_could_not_be_sent_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str
):
    configure(monkeypatch, UPSTREAM_HEADERS=f'{{"x-key":"{value}"}}')

    with pytest.raises(ConfigurationError) as refusal:
        load_settings()

    assert "the value of x-key must be printable ASCII on one line" in str(refusal.value)
    assert "caf" not in str(refusal.value)
    assert "break" not in str(refusal.value)

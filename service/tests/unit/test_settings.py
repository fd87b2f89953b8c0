from pathlib import Path

import pytest

from event_service.settings import ConfigurationError, Environment, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"EVENT_SERVICE_{name}", value)


def refusal(monkeypatch: pytest.MonkeyPatch, **values: str) -> list[str]:
    configure(monkeypatch, **values)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    return str(refused.value).removeprefix("The configuration is wrong:\n").splitlines()


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
    configure(
        monkeypatch,
        OPS_TOKEN="hush-1-hush-1-hush-1",
        UPSTREAM_HEADERS='{"authorization":"Bearer hush-2"}',
    )

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


def test_what_is_new_is_off_or_has_the_documented_default():
    settings = load_settings()

    assert (settings.upstream_keep_alive, settings.upstream_proxy) == (4.0, "")
    assert settings.upstream_ca_file is settings.upstream_client_cert is None
    assert settings.upstream_client_key is None
    assert (settings.keep_alive, settings.drain) == (75.0, 0.0)
    assert (settings.outbox_url, settings.outbox_limit) == ("", 100_000)
    assert (settings.outbox_give_up, settings.outbox_keep) == (259_200.0, 86_400.0)
    assert (settings.cluster_url, settings.cluster_name) == ("", "event-service")
    assert settings.cluster_quorum == 1
    assert settings.forwarded_header == "x-forwarded-for"


@pytest.mark.parametrize(
    "name",
    [
        "REQUEST_DEADLINE",
        "UPSTREAM_TIMEOUT",
        "UPSTREAM_KEEP_ALIVE",
        "BREAKER_WINDOW",
        "BREAKER_COOLDOWN",
        "CACHE_TTL",
        "STALE_IF_ERROR",
        "KEEP_ALIVE",
        "DRAIN",
        "SLOW_REQUEST",
        "OUTBOX_GIVE_UP",
        "OUTBOX_KEEP",
    ],
)
@pytest.mark.parametrize("value", ["1e14", "1e10", "inf", "nan", "-1"])
def test_no_duration_is_without_a_bound(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    assert [line.split(":")[0] for line in refusal(monkeypatch, **{name: value})] == [
        f"EVENT_SERVICE_{name}"
    ]


def test_an_attempt_is_shorter_than_its_request(monkeypatch: pytest.MonkeyPatch):
    (line,) = refusal(monkeypatch, UPSTREAM_TIMEOUT="5", REQUEST_DEADLINE="5")

    assert "EVENT_SERVICE_UPSTREAM_TIMEOUT: must be below EVENT_SERVICE_REQUEST_DEADLINE" in line


def test_a_default_timeout_is_shortened_to_fit_the_deadline(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, REQUEST_DEADLINE="1")

    assert load_settings().upstream_timeout == pytest.approx(0.9)


def test_a_timeout_beyond_the_default_deadline_is_not_refused(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, UPSTREAM_TIMEOUT="10")

    assert load_settings().upstream_timeout == 10


@pytest.mark.parametrize(
    "token", ["fifteen-letters", "sixteen-lettérs-", " sixteen-letters", "a\tb" * 6]
)
def test_a_weak_operator_token_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, token: str
):
    (line,) = refusal(monkeypatch, OPS_TOKEN=token)

    assert line.startswith("EVENT_SERVICE_OPS_TOKEN: must ")
    assert token not in line


@pytest.mark.parametrize(
    "url", ["sqlite:///events.db", "sqlite:////var/events.db", "postgresql://app:hush@db/events"]
)
def test_a_database_may_stand_in_for_the_upstream(monkeypatch: pytest.MonkeyPatch, url: str):
    configure(monkeypatch, UPSTREAM_URL=url)

    settings = load_settings()

    assert settings.upstream_url == url
    assert settings.upstream_concurrency == 16
    assert "hush" not in repr(settings) + str(settings.masked())


@pytest.mark.parametrize(
    "url",
    ["sqlite://events.db", "sqlite:///", "sqlite:///:memory:", "mysql://db"],
)
@pytest.mark.parametrize("name", ["UPSTREAM_URL", "OUTBOX_URL"])
def test_an_impossible_database_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, name: str):
    (line,) = refusal(monkeypatch, **{name: url})

    assert line.startswith(f"EVENT_SERVICE_{name}: must ")


def test_what_means_nothing_for_a_database_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pem = tmp_path / "some.pem"
    pem.touch()
    values = {
        "UPSTREAM_HEADERS": '{"authorization":"Bearer hush"}',
        "UPSTREAM_PATHS": '{"getUsers":"/users"}',
        "UPSTREAM_KEEP_ALIVE": "4",
        "UPSTREAM_CA_FILE": str(pem),
        "UPSTREAM_CLIENT_CERT": str(pem),
        "UPSTREAM_CLIENT_KEY": str(pem),
        "UPSTREAM_PROXY": "http://proxy:3128",
        "UPSTREAM_MAX_BODY": "4096",
        "UPSTREAM_CONCURRENCY": "1024",
        "OUTBOX_URL": "sqlite:///outbox.db",
    }

    lines = refusal(monkeypatch, UPSTREAM_URL="sqlite:///events.db", **values)

    assert [line.split(":")[0] for line in lines] == [f"EVENT_SERVICE_{name}" for name in values]


def test_a_key_needs_its_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    key = tmp_path / "key.pem"
    key.touch()

    (line,) = refusal(monkeypatch, UPSTREAM_CLIENT_KEY=str(key))

    assert "needs EVENT_SERVICE_UPSTREAM_CLIENT_CERT" in line


def test_a_call_for_all_events_of_a_user_may_have_its_id_in_a_query(
    monkeypatch: pytest.MonkeyPatch,
):
    configure(monkeypatch, UPSTREAM_PATHS='{"getEventsByUserId":"/events?userId={id}"}')

    assert load_settings().upstream_paths["getEventsByUserId"] == "/events?userId={id}"


@pytest.mark.parametrize(("given", "meant"), [("Forwarded", "forwarded"), ("", "x-forwarded-for")])
def test_the_name_of_a_header_may_be_in_capitals(
    monkeypatch: pytest.MonkeyPatch, given: str, meant: str
):
    configure(monkeypatch, FORWARDED_HEADER=given)

    assert load_settings().forwarded_header == meant

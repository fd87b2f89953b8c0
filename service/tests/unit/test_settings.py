import json
import shutil
import subprocess
from pathlib import Path

import pytest

from event_service.settings import ConfigurationError, Environment, Settings, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key in one file."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder / "cert.pem", folder / "key.pem")
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


def make_certificate(cert: Path, key: Path, *protection: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (apt-get install openssl)")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(protection or ("-nodes",)),
            *("-subj", "/CN=test", "-days", "2", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )


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
    assert (
        "EVENT_SERVICE_COOLDOWN: unknown variable; did you mean EVENT_SERVICE_BREAKER_COOLDOWN?"
        in lines
    )
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


def test_an_empty_variable_beats_the_dotenv_file_for_every_setting(
    monkeypatch: pytest.MonkeyPatch, pem: Path
):
    default = load_settings()
    other = {
        "HOST": "::1",
        "PORT": "3333",
        "WORKERS": "2",
        "REQUEST_DEADLINE": "7",
        "UPSTREAM_URL": "http://other",
        "UPSTREAM_HEADERS": '{"x-key":"1"}',
        "UPSTREAM_PATHS": '{"getUsers":"/users"}',
        "UPSTREAM_TIMEOUT": "3",
        "UPSTREAM_KEEP_ALIVE": "3",
        "UPSTREAM_CA_FILE": str(pem),
        "UPSTREAM_CLIENT_CERT": str(pem),
        "UPSTREAM_CLIENT_KEY": str(pem),
        "UPSTREAM_PROXY": "http://proxy:3128",
        "UPSTREAM_MAX_BODY": "4096",
        "UPSTREAM_CONCURRENCY": "7",
        "BREAKER_FAILURES": "7",
        "BREAKER_WINDOW": "7",
        "BREAKER_COOLDOWN": "7",
        "RETRY_ATTEMPTS": "7",
        "RETRY_BUDGET": "0.7",
        "SINGLE_FLIGHT": "false",
        "CACHE_TTL": "7",
        "STALE_IF_ERROR": "7",
        "RATE_LIMIT": "7/second",
        "API_KEY_HEADER": "x-api-key",
        "TRUSTED_PROXIES": "10.0.0.0/8",
        "FORWARDED_HEADER": "forwarded",
        "KEEP_ALIVE": "7",
        "DRAIN": "7",
        "MAX_IN_FLIGHT": "7",
        "CORS_ORIGINS": "*",
        "OUTBOX_URL": "sqlite:///outbox.db",
        "OUTBOX_LIMIT": "7",
        "OUTBOX_GIVE_UP": "7",
        "OUTBOX_KEEP": "7",
        "CLUSTER_URL": "redis://redis",
        "CLUSTER_NAME": "other",
        "CLUSTER_QUORUM": "7",
        "OPS_TOKEN": "sixteen-letters-",
        "DASHBOARD_CONTROLS": "true",
        "RUNBOOK_URL": "https://docs.example/runbook",
        "GRAFANA_URL": "https://grafana.example/d/events",
        "TRACE_URL": "https://jaeger.example/trace/{trace_id}",
        "SLOW_REQUEST": "7",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
    }
    assert set(other) == {name.upper() for name in Settings.model_fields} - {"ENV"}
    Path(".env").write_text("".join(f"EVENT_SERVICE_{k}={v}\n" for k, v in other.items()))
    from_file = load_settings().masked()
    assert not {k for k, v in default.masked().items() if from_file[k] == v} - {"EVENT_SERVICE_ENV"}

    configure(monkeypatch, **dict.fromkeys(other, ""))

    assert load_settings() == default


@pytest.mark.parametrize("env", ["production", "testing", "Production", "nonsense"])
def test_a_dotenv_file_cannot_choose_an_environment_that_does_not_read_it(
    monkeypatch: pytest.MonkeyPatch, env: str
):
    Path(".env").write_text(f"EVENT_SERVICE_ENV={env}\n")

    (line,) = refusal(monkeypatch)
    assert line.startswith(".env: EVENT_SERVICE_ENV must not be set there")

    configure(monkeypatch, ENV="testing")
    assert load_settings().env is Environment.TESTING


def test_a_fault_of_the_dotenv_file_is_told_with_where_it_stands(monkeypatch: pytest.MonkeyPatch):
    Path(".env").write_text("EVENT_SERVICE_PORT 3999\nEVENT_SERVICE_WORKERS=many\n")

    assert refusal(monkeypatch) == [
        ".env line 1: EVENT_SERVICE_PORT is not followed by '='",
        "EVENT_SERVICE_WORKERS: must be a whole number from 1 to 64 (got 'many' in .env)",
    ]


def test_variables_that_kubernetes_generates_are_ignored_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
):
    configure(
        monkeypatch,
        PORT="tcp://10.0.0.1:3000",
        SERVICE_HOST="10.0.0.1",
        PORT_3000_TCP_ADDR="10.0.0.1",
    )
    notes: list[str] = []

    assert load_settings(on_note=notes.append).port == 3000
    (note,) = notes
    assert (
        "EVENT_SERVICE_PORT, EVENT_SERVICE_PORT_3000_TCP_ADDR, EVENT_SERVICE_SERVICE_HOST" in note
    )
    assert "enableServiceLinks: false" in note


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"PORT": "http"}, "must be a whole number from 1 to 65535 (got 'http')"),
        ({"PORT": "70000"}, "must be a whole number from 1 to 65535 (got '70000')"),
        ({"WORKERS": "1.5"}, "must be a whole number from 1 to 64 (got '1.5')"),
        ({"DRAIN": "-1"}, "must be a number from 0 to 86400 (got '-1')"),
        ({"BREAKER_WINDOW": "0"}, "must be a number above 0, at most 86400 (got '0')"),
        ({"SINGLE_FLIGHT": "maybe"}, "must be true or false (got 'maybe')"),
        (
            {"LOG_LEVEL": "INFO"},
            "must be debug, info, warning or error (got 'INFO'); did you mean info?",
        ),
        (
            {"ENV": "prod"},
            "must be development, testing or production (got 'prod'); did you mean production?",
        ),
        ({"UPSTREAM_PATHS": '{"getUsers":1}'}, "the value of getUsers must be a string"),
        ({"UPSTREAM_PATHS": "[" * 100_000}, "must be a JSON object"),
        ({"CLUSTER_NAME": "a b"}, "must be 1 to 64 letters, digits, '.', '_' or '-' (got 'a b')"),
        ({"HOST": "caf\udce9"}, "(got 'caf\\udce9')"),
        ({"HOST": "\x1b[31m"}, "(got '\\x1b[31m')"),
        ({"HOST": "http://127.0.0.1"}, "without a port (got 'http://127.0.0.1')"),
        ({"RATE_LIMIT": "x" * 1000}, f"(got '{'x' * 100}…')"),
        ({"UPSTREAM_CA_FILE": "/no/such.pem"}, "No such file or directory (got '/no/such.pem')"),
    ],
)
def test_a_fault_is_in_our_words_and_quotes_the_value(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: str
):
    (name,) = given
    (line,) = refusal(monkeypatch, **given)

    assert line.startswith(f"EVENT_SERVICE_{name}: ")
    assert told in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPS_TOKEN", "hush"),
        ("UPSTREAM_HEADERS", '{"x-key": "hush\\n"}'),
        ("UPSTREAM_HEADERS", '{"x-key": "hush"'),
        ("UPSTREAM_URL", "http://user:hush@host"),
        ("UPSTREAM_URL", "http://user:hush/hush@host"),
        ("UPSTREAM_URL", "user:hush@host"),
        ("UPSTREAM_URL", "http://host/?key=hush"),
        ("UPSTREAM_URL", "sqlite://user:hush@host"),
        ("UPSTREAM_PROXY", "https://user:hush@host"),
        ("OUTBOX_URL", "mysql://user:hush@host"),
        ("CLUSTER_URL", "http://:hush@host"),
        ("GRAFANA_URL", "https://user:hush@host"),
        ("OPS_TOKNE", "hush"),
    ],
)
def test_no_fault_shows_a_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    (line,) = refusal(monkeypatch, **{name: value})

    assert line.startswith(f"EVENT_SERVICE_{name}: ")
    assert "hush" not in line


def test_the_faults_of_tracing_stand_in_the_same_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "soon")

    assert [line.split(":")[0] for line in refusal(monkeypatch, PORT="x")] == [
        "EVENT_SERVICE_PORT",
        "OTEL_TRACES_EXPORTER",
        "OTEL_BSP_SCHEDULE_DELAY",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ENV": "production", "UPSTREAM_URL": "https://events.example.com/v2"},
        {"OPS_TOKEN": "hush-hush-hush-hush", "UPSTREAM_HEADERS": '{"x-key":"hush"}'},
        {"UPSTREAM_URL": "sqlite:////var/lib/event service.db".replace(" ", "%20")},
        {"UPSTREAM_URL": "postgresql://app:hush@db/events"},
        {"CORS_ORIGINS": "https://a.example,https://b.example", "RATE_LIMIT": "1/second;5/hour"},
        {"TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8", "FORWARDED_HEADER": "Forwarded"},
        {"REQUEST_DEADLINE": "1", "CLUSTER_URL": "redis://:hush@redis/0", "CLUSTER_QUORUM": "2"},
        {"UPSTREAM_TIMEOUT": "10"},
        {"UPSTREAM_PATHS": '{"getEventsByUserId":"/events?userId={id}"}'},
    ],
)
def test_the_effective_settings_are_lines_that_a_dotenv_file_may_have(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
):
    configure(monkeypatch, **values)
    lines = list(load_settings().env_lines())
    for name in values:
        monkeypatch.delenv(f"EVENT_SERVICE_{name}")
    Path(".env").write_text("\n".join(lines))

    written = list(load_settings().env_lines())

    commented = {line.removeprefix("# ") for line in lines if line.startswith("#")}
    assert set(lines) - set(written) <= {f"# {line}" for line in commented}
    assert "hush" not in "".join(lines)
    assert len(lines) == len(Settings.model_fields)


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
        "http://upstream:0",
        "http://upstream/?",
        "http://upstream/#",
        "http://exa mple",
        "http://exam\tple",
        " http://upstream",
        "http://256.256.256.256",
        "http://1.2.3.4.5",
        "http://%zz",
        "http://upstream/%zz",
        "http://upstream/a b",
        "http://upstream/caf\u00e9",
        "http://[v1.x]",
        "http://[fe80::1%25eth0]",
        "http://[::1",
        "http://up..stream",
        "http://-upstream-",
        "http://caf\udce9",
        "http://caf\u00e9",
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
        ('{"getUsers":"/users?all=1"}', "no query"),
        ('{"getUsers":"/users#all"}', "'#'"),
        ('{"getUserById":"/users?id={id}"}', "no query"),
        ('{"getEventsByUserId":"/events?user"}', "exactly one {id}"),
        ('{"getEventsByUserId":"/events?user={id}#x"}', "'#'"),
        ('{"getUsers":"/all users"}', "cannot be sent"),
        ('{"getUsers":"/%zz"}', "cannot be sent"),
        ('{"getUsers":"/\\udce9"}', "cannot be sent"),
        ('{"getUsers":"/caf\\u00e9"}', "cannot be sent"),
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


@pytest.mark.parametrize(
    "name",
    [
        "content-length",
        "Host",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "Content-Type",
        "idempotency-key",
        "traceparent",
        "x request id",
        "",
        "x-k\u00e9y",
    ],
)
def test_a_header_that_is_set_anyway_or_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
):
    (line,) = refusal(monkeypatch, UPSTREAM_HEADERS=json.dumps({name: "hush"}))

    assert line.startswith("EVENT_SERVICE_UPSTREAM_HEADERS: ")
    assert "hush" not in line


@pytest.mark.parametrize("name", ["accept", "user-agent", "authorization", "x_key"])
def test_other_headers_are_taken(monkeypatch: pytest.MonkeyPatch, name: str):
    configure(monkeypatch, UPSTREAM_HEADERS=json.dumps({name: "some value"}))

    assert load_settings().upstream_headers[name].get_secret_value() == "some value"


@pytest.mark.parametrize(
    "host",
    ["nowhere at all", "http://x", "127.0.0.1:3000", "[::1]", "256.1.1.1", "fe80::1%eth0", "/"],
)
def test_an_impossible_host_is_refused(monkeypatch: pytest.MonkeyPatch, host: str):
    (line,) = refusal(monkeypatch, HOST=host)

    assert line.startswith("EVENT_SERVICE_HOST: must be an address or a name of this machine")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "node-1.example"])
def test_an_address_or_a_name_may_be_listened_on(monkeypatch: pytest.MonkeyPatch, host: str):
    configure(monkeypatch, HOST=host)

    assert load_settings().host == host


@pytest.mark.parametrize("name", ["UPSTREAM_CA_FILE", "UPSTREAM_CLIENT_CERT"])
def test_a_file_without_a_certificate_is_one_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    path = tmp_path / "some.pem"
    path.write_text("nonsense")

    (line,) = refusal(monkeypatch, **{name: str(path)})

    assert str(path) in line
    assert "PEM" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPSTREAM_PROXY", "https://proxy"),
        ("UPSTREAM_PROXY", "proxy:3128"),
        ("UPSTREAM_PROXY", "http://proxy/path"),
        ("RUNBOOK_URL", "javascript:alert(1)"),
        ("GRAFANA_URL", "https://user:hush@grafana"),
        ("GRAFANA_URL", "grafana.example"),
        ("TRACE_URL", "https://jaeger.example/trace/"),
        ("TRACE_URL", "ftp://jaeger.example/{trace_id}"),
        ("CLUSTER_URL", "http://redis"),
        ("CLUSTER_URL", "redis://"),
        ("CLUSTER_URL", "redis://:hu/hush@redis"),
        ("CLUSTER_URL", "redis://red is"),
        ("CLUSTER_URL", "redis://redis/zero"),
        ("CLUSTER_URL", "redis://redis/0?ssl_ca_certs=ca.pem"),
        ("CLUSTER_URL", "rediss://redis/0?ssl_ca_certs=/nowhere/ca.pem"),
        ("CLUSTER_URL", "redis://redis/0?nonsense=1"),
        ("CLUSTER_URL", "redis://redis/0?socket_timeout=soon"),
        ("OUTBOX_URL", "postgresql://db/x?nonsense=1"),
        ("OUTBOX_URL", "outbox.db"),
        ("CORS_ORIGINS", "https://App.example.com"),
        ("CORS_ORIGINS", "https://app.example.com:443"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://256.1.1.1"),
    ],
)
def test_an_impossible_address_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    (line,) = refusal(monkeypatch, **{name: value})

    assert line.startswith(f"EVENT_SERVICE_{name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPSTREAM_PROXY", "http://user:hush@proxy:3128"),
        ("UPSTREAM_PROXY", "http://user:hu/hush@proxy:3128"),
        ("UPSTREAM_URL", "http://upstream/users@home"),
        ("CLUSTER_URL", "rediss://user:hush@redis:6380/1?protocol=3"),
        ("OUTBOX_URL", "postgresql:///events"),
        ("OUTBOX_URL", "postgres://app:hush@db:5432/events?sslmode=verify-full"),
    ],
)
def test_a_possible_address_is_taken_and_its_password_never_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    configure(monkeypatch, **{name: value})
    settings = load_settings()

    assert getattr(settings, name.lower()) == value
    assert "hush" not in repr(settings) + "".join(settings.env_lines())


@pytest.mark.parametrize("value", ["line\\nbreak", "caf\\u00e9"])
def test_a_header_that_could_not_be_sent_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str
):
    configure(monkeypatch, UPSTREAM_HEADERS=f'{{"x-key":"{value}"}}')

    with pytest.raises(ConfigurationError) as refusal:
        load_settings()

    assert "the value of 'x-key' must be printable ASCII on one line" in str(refusal.value)
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
    "url",
    [
        "sqlite:///events.db",
        "sqlite:////tmp/events.db",
        "postgresql://app:hush@a:1,b,c:65535/events",
    ],
)
def test_a_database_may_stand_in_for_the_upstream(monkeypatch: pytest.MonkeyPatch, url: str):
    configure(monkeypatch, UPSTREAM_URL=url)

    settings = load_settings()

    assert settings.upstream_url == url
    assert settings.upstream_concurrency == 16
    assert "hush" not in repr(settings) + str(settings.masked())


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite://events.db", "sqlite:///", "sqlite:///:memory:", "mysql://db"),
        *("sqlite:///nowhere/events.db", "sqlite:////", "sqlite:///."),
        *("postgresql://db:65536/events", "postgresql://a:1,b:0/events"),
    ],
)
@pytest.mark.parametrize("name", ["UPSTREAM_URL", "OUTBOX_URL"])
def test_an_impossible_database_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, name: str):
    (line,) = refusal(monkeypatch, **{name: url})

    assert line.startswith(f"EVENT_SERVICE_{name}: must ")


def test_settings_without_meaning_for_a_database_are_refused_by_name(
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


def test_a_certificate_and_its_key_are_taken(monkeypatch: pytest.MonkeyPatch, pem: Path):
    configure(monkeypatch, UPSTREAM_CA_FILE=str(pem), UPSTREAM_CLIENT_CERT=str(pem))

    assert load_settings().upstream_client_cert == pem


def test_a_key_that_does_not_fit_or_is_encrypted_is_refused(
    monkeypatch: pytest.MonkeyPatch, pem: Path, tmp_path: Path
):
    other, encrypted = tmp_path / "other.pem", tmp_path / "encrypted.pem"
    make_certificate(tmp_path / "other-cert.pem", other)
    make_certificate(tmp_path / "encrypted-cert.pem", encrypted, "-passout", "pass:hush")

    for key, cert in ((other, pem), (encrypted, tmp_path / "encrypted-cert.pem")):
        (line,) = refusal(monkeypatch, UPSTREAM_CLIENT_CERT=str(cert), UPSTREAM_CLIENT_KEY=str(key))
        assert line.startswith("TLS to the upstream: ")
        assert str(key) in line


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


@pytest.mark.parametrize("name", ["UPSTREAM_URL", "OUTBOX_URL"])
def test_a_scheme_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch, name: str):
    configure(monkeypatch, **{name: "SQLite:///Events.db"})
    assert getattr(load_settings(), name.lower()) == "sqlite:///Events.db"


def test_the_scheme_of_an_api_or_a_cluster_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, UPSTREAM_URL="HTTP://Events.example/Api", CLUSTER_URL="REDIS://Cache")
    settings = load_settings()
    assert settings.upstream_url == "http://Events.example/Api"
    assert settings.cluster_url == "redis://Cache"


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_text_that_is_not_utf_8_is_one_fault(monkeypatch: pytest.MonkeyPatch, name: str):
    value = b"http://a/\xff".decode(errors="surrogateescape")

    (line,) = refusal(monkeypatch, **{name.upper(): value})

    assert line.startswith(f"EVENT_SERVICE_{name.upper()}: must be text in UTF-8")
    assert line.isprintable()


@pytest.mark.parametrize("name", ["UPSTREAM_CA_FILE", "UPSTREAM_CLIENT_CERT"])
def test_a_fault_is_one_line_whatever_a_files_name_is(monkeypatch: pytest.MonkeyPatch, name: str):
    (line,) = refusal(monkeypatch, **{name: "a\nb"})

    assert line.startswith(f"EVENT_SERVICE_{name}: ")
    assert line.isprintable()

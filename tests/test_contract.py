"""The service as its users were promised it, asked from outside over plain sockets."""

import json
import re
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from .processes import Process, event_service, mock_upstream

NEW_EVENT = {"userId": "1", "title": "Standup"}
JSON = {"Content-Type": "application/json"}
OPERATIONS = {"getUsers", "getUserById", "getEvents", "getEventById", "addEvent"}

SETTINGS = {
    "HOST": "127.0.0.1",
    "PORT": "3000",
    "WORKERS": "1",
    "UPSTREAM_URL": "http://127.0.0.1:4010",
    "UPSTREAM_TIMEOUT": "2.0",
    "UPSTREAM_KEEP_ALIVE": "4.0",
    "UPSTREAM_CA_FILE": "",
    "UPSTREAM_CLIENT_CERT": "",
    "UPSTREAM_CLIENT_KEY": "",
    "UPSTREAM_PROXY": "",
    "UPSTREAM_MAX_BODY": str(8 * 1024 * 1024),
    "UPSTREAM_CONCURRENCY": "1024",
    "REQUEST_DEADLINE": "5.0",
    "BREAKER_FAILURES": "3",
    "BREAKER_WINDOW": "30.0",
    "BREAKER_COOLDOWN": "10.0",
    "RETRY_ATTEMPTS": "3",
    "RETRY_BUDGET": "0.1",
    "SINGLE_FLIGHT": "true",
    "CACHE_TTL": "0.0",
    "STALE_IF_ERROR": "0.0",
    "RATE_LIMIT": "",
    "FORWARDED_HEADER": "x-forwarded-for",
    "KEEP_ALIVE": "75.0",
    "DRAIN": "0.0",
    "OUTBOX_URL": "",
    "OUTBOX_LIMIT": "100000",
    "OUTBOX_GIVE_UP": "259200.0",
    "OUTBOX_KEEP": "86400.0",
    "CLUSTER_URL": "",
    "CLUSTER_NAME": "event-service",
    "CLUSTER_QUORUM": "1",
    "MAX_IN_FLIGHT": "4096",
    "OPS_TOKEN": "",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "auto",
}
METRICS = {
    "http_requests_total": {"method", "route", "status"},
    "http_request_duration_seconds_count": {"method", "route"},
    "http_requests_in_flight": set(),
    "upstream_requests_total": {"operation", "outcome"},
    "upstream_request_duration_seconds_count": {"operation"},
    "upstream_retries_total": {"operation"},
    "single_flight_shared_total": {"operation"},
    "circuit_breaker_state": {"breaker", "state"},
    "circuit_breaker_transitions_total": {"breaker", "from_state", "to_state"},
    "circuit_breaker_calls_total": {"breaker", "outcome"},
    "rate_limited_total": set(),
    "load_shed_total": set(),
}
LOG_MEMBERS = [
    "timestamp",
    "level",
    "event",
    "request_id",
    "trace_id",
    "method",
    "route",
    "path",
    "status",
    "duration_ms",
    "client",
    "upstream_calls",
]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def slug(self) -> str:
        return self.json["type"].removeprefix("/problems/")


class Service(NamedTuple):
    url: str
    process: Process
    upstream: str

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        return ask(self.url, method, path, body, headers)

    def add(self, **members: Any) -> Answer:
        return self.ask("POST", "/api/addEvent", {**NEW_EVENT, **members}, JSON)


def ask(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        event_service(upstream, RETRY_BUDGET="0") as (url, process),
    ):
        yield Service(url, process, upstream)


@pytest.fixture
def fault(service: Service) -> Iterator[Any]:
    def put(operation: str, **members: Any) -> None:
        answer = ask(service.upstream, "PUT", f"/__admin/faults/{operation}", members)
        assert answer.status == 200

    ask(service.upstream, "POST", "/__admin/reset")
    yield put
    ask(service.upstream, "POST", "/__admin/reset")


def latest_call(upstream: str) -> dict[str, Any]:
    call: dict[str, Any] = ask(upstream, "GET", "/__admin/requests?limit=1").json["requests"][0]
    return call


@pytest.mark.parametrize(
    ("user_id", "status", "slug"),
    [
        ("x" * 64, 404, "user-not-found"),
        ("x" * 129, 400, "invalid-request"),
        ("A-z_9", 404, "user-not-found"),
        ("..", 400, "invalid-request"),
        ("..%2fgetUsers", 400, "invalid-request"),
        ("%252e", 400, "invalid-request"),
        ("1%00", 400, "invalid-request"),
        ("1%0a", 400, "invalid-request"),
        ("1%3fx=1", 400, "invalid-request"),
        ("1%23", 400, "invalid-request"),
        ("%ff", 400, "invalid-request"),
        ("1?partial=maybe", 400, "invalid-request"),
        ("1/2", 404, "not-found"),
    ],
)
def test_an_id_is_checked_after_decoding(service: Service, user_id: str, status: int, slug: str):
    answer = service.ask("GET", f"/api/getEventsByUserId/{user_id}")

    assert (answer.status, answer.slug) == (status, slug)


def test_an_encoded_id_is_the_id(service: Service):
    events = service.ask("GET", "/api/getEventsByUserId/%31").json

    assert [event["id"] for event in events][:2] == ["101", "102"]
    assert set(events[0]) == {"id", "userId", "title", "description"}


def test_a_partial_reply_has_what_succeeded_and_says_what_did_not(service: Service, fault: Any):
    whole = service.ask("GET", "/api/getEventsByUserId/1?partial=true").json
    fault("getEventById", status=500, first_n=1)
    partial = service.ask("GET", "/api/getEventsByUserId/1?partial=true").json
    fault("getEventById", status=500, first_n=1)
    strict = service.ask("GET", "/api/getEventsByUserId/1")

    assert [event["id"] for event in whole["events"]] == ["101", "102"]
    assert (whole["errors"], whole["partial"]) == ([], False)
    assert set(partial) == {"events", "errors", "partial"}
    assert partial["partial"] is True
    (error,) = partial["errors"]
    assert {error["id"], *(event["id"] for event in partial["events"])} == {"101", "102"}
    assert (error["status"], error["type"]) == (502, "/problems/upstream-error")
    assert (strict.status, strict.slug) == (502, "upstream-error")


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"title": "t"}, 200),
        ({"title": "é" * 200}, 200),
        ({"title": "é" * 201}, 422),
        ({"title": ""}, 422),
        ({"title": None}, 422),
        ({"description": "d" * 2000}, 200),
        ({"description": "d" * 2001}, 422),
        ({"description": ""}, 200),
        ({"description": None}, 200),
        ({"description": 5}, 422),
        ({"userId": 1}, 422),
        ({"userId": "x" * 129}, 422),
        ({"colour": "red"}, 422),
    ],
)
def test_a_new_event_keeps_to_its_limits(service: Service, members: dict[str, Any], status: int):
    answer = service.add(**members)

    assert answer.status == status
    if status == 200:
        assert answer.json == {"success": True, "id": answer.json["id"]}
    else:
        (error,) = answer.json["errors"]
        assert error["path"] == f"$.{next(iter(members))}"
        assert error["message"]


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 200), (64 * 1024 + 1, 413)])
def test_a_body_has_64_kib_at_most(service: Service, size: int, status: int):
    body = json.dumps(NEW_EVENT).encode().ljust(size)

    assert service.ask("POST", "/api/addEvent", body, JSON).status == status


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;version=1", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
def test_a_body_is_json_or_refused(service: Service, content_type: str, status: int):
    headers = {"Content-Type": content_type}

    assert service.ask("POST", "/api/addEvent", NEW_EVENT, headers).status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/getEventsByUserId/nobody", 404),
        ("GET", "/api/getEventsByUserId/%20", 400),
        ("DELETE", "/api/getUsers", 405),
        ("POST", "/api/addEvent", 415),
    ],
)
def test_every_problem_has_the_same_members(service: Service, method: str, path: str, status: int):
    answer = service.ask(method, f"{path}?partial=true", headers={"X-Request-ID": "me-1"})

    problem = answer.json
    assert answer.status == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.fullmatch(r"/problems/[a-z-]+", problem["type"])
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == path
    assert problem["request_id"] == answer.headers["x-request-id"] == "me-1"


def test_a_refused_method_is_told_which_there_are(service: Service):
    assert service.ask("POST", "/api/getUsers").headers["allow"] == "GET, HEAD"
    assert service.ask("GET", "/api/addEvent").headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("A.b_c-9", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("a/b", False),
        ("", False),
    ],
)
def test_a_request_keeps_its_id_if_it_is_a_good_one(service: Service, sent: str, *, kept: bool):
    answer = service.ask("GET", "/livez", headers={"X-Request-ID": sent})

    got = answer.headers["x-request-id"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", got)
    assert (got == sent) is kept


def test_a_new_event_is_sent_with_our_id_which_is_also_its_key(service: Service):
    answer = service.add(title="With an id")

    event_id = answer.json["id"]
    assert uuid.UUID(event_id).version == 7
    assert latest_call(service.upstream)["idempotency_key"] == event_id
    stored = {
        event["id"]: event["title"] for event in ask(service.upstream, "GET", "/getEvents").json
    }
    assert stored[event_id] == "With an id"


def test_a_clients_own_key_reaches_the_upstream_unchanged(service: Service):
    headers = {**JSON, "Idempotency-Key": "Own:Key/1=~"}
    first = service.ask("POST", "/api/addEvent", NEW_EVENT, headers)
    call = latest_call(service.upstream)
    again = service.ask("POST", "/api/addEvent", NEW_EVENT, headers)

    assert call["idempotency_key"] == "Own:Key/1=~"
    assert again.json == first.json


def test_the_callers_trace_and_request_id_are_passed_on(service: Service):
    trace = "0af7651916cd43dd8448eb211c80319c"
    service.ask(
        "GET",
        "/api/getUsers",
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Request-ID": "me-2"},
    )

    call = latest_call(service.upstream)
    assert call["traceparent"].split("-")[:2] == ["00", trace]
    assert call["request_id"] == "me-2"


def test_without_a_retry_budget_there_are_no_retries(service: Service, fault: Any):
    fault("getUsers", status=500)

    assert service.ask("GET", "/api/getUsers").status == 502
    assert ask(service.upstream, "GET", "/__admin/requests").json["counts"]["getUsers"] == 1


@pytest.mark.parametrize("path", ["/api/getUsers", "/livez", "/readyz", "/nothing"])
def test_each_request_is_one_log_line(service: Service, path: str):
    request_id = f"line-{path.rpartition('/')[2]}"
    status = service.ask("GET", path, headers={"X-Request-ID": request_id}).status
    service.process.wait_for_output(request_id)

    lines = map(json.loads, service.process.output.splitlines())
    (line,) = [each for each in lines if each.get("request_id") == request_id]
    assert list(line)[: len(LOG_MEMBERS)] == LOG_MEMBERS
    assert (line["method"], line["path"], line["status"]) == ("GET", path, status)


def test_every_metric_is_there_with_its_labels(service: Service):
    service.ask("GET", "/api/getEventsByUserId/1")
    text = service.ask("GET", "/metrics").body.decode()

    samples: dict[str, list[dict[str, str]]] = {}
    for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        samples.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    assert {name: set(samples[name][0]) for name in METRICS} == METRICS
    for name in ("upstream_retries_total", "single_flight_shared_total"):
        assert {labels["operation"] for labels in samples[name]} == OPERATIONS
    routes = {labels["route"] for labels in samples["http_requests_total"]}
    assert "/api/getEventsByUserId/{id}" in routes
    assert "/api/getEventsByUserId/1" not in routes


def test_every_setting_has_its_default():
    # Unlike development, testing reads no .env that may lie here.
    process = Process("event-service", "check-config", EVENT_SERVICE_ENV="testing")

    assert process.wait() == 0
    shown = dict(line.split("=", 1) for line in process.output.splitlines())
    assert {name: shown.get(f"EVENT_SERVICE_{name}") for name in SETTINGS} == SETTINGS
    assert {"EVENT_SERVICE_UPSTREAM_HEADERS", "EVENT_SERVICE_UPSTREAM_PATHS"} <= set(shown)

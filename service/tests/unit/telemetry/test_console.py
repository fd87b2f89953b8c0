import re

import pytest

from event_service.telemetry.console import ConsoleLines

REQUEST = {
    "timestamp": "15:36:37",
    "level": "info",
    "event": "request",
    "request_id": "01a20339-fd4a-7614-b5f4-ab0a5cc1baf8",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "method": "POST",
    "route": "/api/addEvent",
    "path": "/api/addEvent",
    "status": 200,
    "duration_ms": 2.71,
    "client": "192.0.2.1",
    "upstream_calls": 1,
}
REFUSED = {"level": "warning", "status": 503, "error": "CircuitOpen"}
FAILED = {
    "level": "error",
    "status": 504,
    "error": "UpstreamTimeout",
    "operation": "addEvent",
    "reason": "timeout: no reply in time",
}
TALKATIVE = {**FAILED, "reason": "no reply in time; " * 20}


def line(**members):
    return ConsoleLines(colours=False)(None, "", {**REQUEST, **members})


def test_a_request_is_one_short_line():
    assert line() == "15:36:37  POST /api/addEvent  200  2.7 ms"
    assert line(duration_ms=1234.5) == "15:36:37  POST /api/addEvent  200  1.23 s"


def test_a_refusal_says_why():
    assert line(**REFUSED) == "15:36:37  POST /api/addEvent  503  2.7 ms  circuit open"


def test_an_id_stands_where_something_failed():
    assert line(**FAILED, request_id="abc") == (
        "15:36:37  POST /api/addEvent  504  2.7 ms  addEvent: timeout: no reply in time  abc"
    )
    assert "abc" not in line(request_id="abc") + line(**REFUSED, request_id="abc")


def test_a_long_id_gives_way_to_the_reason_and_keeps_its_end():
    text = line(**FAILED)

    assert "addEvent: timeout: no reply in time  …" in text
    assert text.endswith("ab0a5cc1baf8")
    assert len(text) == 100


def test_a_bug_is_named_as_the_code_names_it():
    text = line(level="error", status=500, error="RuntimeError", request_id="abc")

    assert text == "15:36:37  POST /api/addEvent  500  2.7 ms  RuntimeError  abc"


@pytest.mark.parametrize(
    "members", [{}, REFUSED, FAILED, TALKATIVE, {"slow": True, "level": "warning"}]
)
@pytest.mark.parametrize("path", ["/", "/api/getEventsByUserId/" + "x" * 128, "/" + "\n" * 1000])
@pytest.mark.parametrize("request_id", ["abc", REQUEST["request_id"], "x" * 128])
@pytest.mark.parametrize("duration", [0.01, 59_999.99])
def test_no_request_takes_more_than_a_hundred_columns(members, path, request_id, duration):
    members = {**members, "path": path, "request_id": request_id, "duration_ms": duration}
    text = line(**members)

    assert len(text) <= 100
    assert text.isprintable()
    painted = ConsoleLines(colours=True)(None, "", {**REQUEST, **members})
    assert re.sub(r"\x1b\[\d+m", "", painted) == text


def test_a_transition_is_told_in_a_sentence():
    message = "addEvent: closed → open (3 failures within 30 s)"
    text = line(event="breaker state changed", level="warning", message=message, old="closed")

    assert text == f"15:36:37  {message}"


def test_the_start_does_not_print_all_settings():
    text = ConsoleLines(colours=False)(
        None,
        "",
        {
            "timestamp": "15:36:37",
            "level": "info",
            "event": "service started",
            "version": "1.0.0",
            "pid": 7,
            "settings": {"EVENT_SERVICE_PORT": 3000},
        },
    )

    assert text == "15:36:37  service started  version=1.0.0 pid=7"


@pytest.mark.parametrize(
    ("status", "told"), [(404, "not found"), (405, "method not allowed"), (403, "forbidden")]
)
def test_what_the_router_refuses_is_told_in_words(status, told):
    assert line(status=status, error="HTTPException").endswith(f"  2.7 ms  {told}")


def test_retries_that_end_are_told_in_a_sentence_that_fits():
    members = {
        "event": "upstream retries given up",
        "level": "warning",
        "operation": "getUsers",
        "attempt": 3,
        "error": "UpstreamBroken",
        "reason": "the connection ended before the reply",
        "why": "attempts",
    }

    assert line(**members) == (
        "15:36:37  getUsers: the connection ended before the reply"
        " (given up after attempt 3: attempts)"
    )
    assert len(line(**{**members, "reason": "x" * 200})) == 100


def test_a_warning_says_so_and_has_its_ids():
    text = line(event="an odd thing", level="warning", why="it happens")

    assert text.startswith("15:36:37  warning  an odd thing\n")
    assert f"request_id={REQUEST['request_id']}" in text


def test_a_line_that_does_not_fit_goes_on_below_and_loses_nothing():
    text = line(event="an odd thing", level="warning", why="it-happens " * 9, worker="x" * 120)

    first, *others = text.splitlines()
    assert first == "15:36:37  warning  an odd thing"
    assert [each for each in others if len(each) > 100] == [" " * 10 + "worker=" + "x" * 120]
    assert all(each.startswith(" " * 10) for each in others)
    assert f"request_id={REQUEST['request_id']}" in text
    assert text.count("it-happens") == 9

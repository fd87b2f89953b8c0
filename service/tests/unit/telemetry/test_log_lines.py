import asyncio
import io
import json
import logging
import re
import select
from contextvars import copy_context

import pytest
import structlog

from event_service import context
from event_service.context import CallContext
from event_service.errors import UpstreamTimeout, UserNotFound
from event_service.signals import BrokenOff, GaveUp, RequestDone, Retried, Signals
from event_service.telemetry.log_lines import LogLines
from event_service.telemetry.logs import JsonLines, configure_logging, set_level
from halfopen import CircuitBreaker, FailureCount


@pytest.fixture
def log(monkeypatch):
    """Sets up the log in the given format, and reads what was written since."""
    handlers, level = logging.root.handlers[:], logging.root.level
    output = io.BytesIO()
    stream = io.TextIOWrapper(output, encoding="utf-8", newline="")

    class Log:
        def configure(self, log_format, level="debug"):
            monkeypatch.setattr("sys.stdout", stream)
            configure_logging(level=level, log_format=log_format)

        def text(self):
            stream.flush()
            text = output.getvalue().decode()
            output.seek(0)
            output.truncate()
            return text

        def lines(self):
            return [json.loads(line) for line in self.text().splitlines()]

    log = Log()
    log.configure("json")
    yield log
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def record(**members):
    return RequestDone(
        **{
            "method": "GET",
            "route": "/api/getUsers",
            "path": "/api/getUsers",
            "status": 200,
            "duration": 0.0123456,
            "client": "192.0.2.1",
            "request_id": "abc",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "upstream_calls": 1,
            "error": None,
            **members,
        }
    )


def test_a_requests_line_has_its_members_in_their_order(log):
    LogLines(slow_request=1).request_done(record())

    (line,) = log.lines()
    assert list(line) == [
        *("timestamp", "level", "event", "request_id", "trace_id", "method", "route", "path"),
        *("status", "duration_ms", "client", "upstream_calls", "worker"),
    ]
    assert line["duration_ms"] == 12.35
    assert line["timestamp"].endswith("Z")


def test_a_partial_replys_line_says_how_many_events_failed(log):
    LogLines(slow_request=1).request_done(record(failed_events=3))

    (line,) = log.lines()
    assert line["failed_events"] == 3


@pytest.mark.parametrize(
    ("members", "level"),
    [
        ({}, "info"),
        ({"status": 404}, "info"),
        ({"status": 429}, "info"),
        ({"status": 499}, "info"),
        ({"status": 500, "error": ValueError()}, "error"),
        ({"status": 502}, "error"),
        ({"status": 503}, "warning"),
        ({"status": 504}, "error"),
        ({"duration": 1.0}, "warning"),
        ({"duration": 60.0, "route": "/dashboard/stream"}, "info"),
        ({"route": "/livez"}, "info"),
        ({"route": "/readyz"}, "info"),
        ({"route": "/metrics"}, "info"),
        ({"route": "/metrics", "status": 401}, "info"),
        ({"route": "/metrics", "status": 500, "error": ValueError()}, "error"),
    ],
)
def test_the_level_says_whether_someone_should_look(log, members, level):
    LogLines(slow_request=1).request_done(record(**members))
    assert [line["level"] for line in log.lines()] == [level]


def test_a_slow_request_says_so(log):
    lines = LogLines(slow_request=1)
    lines.request_done(record(duration=0.999))
    lines.request_done(record(duration=1.0))
    assert [line.get("slow") for line in log.lines()] == [None, True]


def test_a_failed_request_says_what_failed(log):
    lines = LogLines(slow_request=1)
    lines.request_done(record(status=404, error=UserNotFound("x")))
    timeout = UpstreamTimeout("getUsers", "for clients", reason="timeout: no reply in time")
    lines.request_done(record(status=504, error=timeout))

    first, second = log.lines()
    assert first["error"] == "UserNotFound"
    assert "operation" not in first
    assert second["error"] == "UpstreamTimeout"
    assert second["operation"] == "getUsers"
    assert second["reason"] == "timeout: no reply in time"


def bug():
    password = "hunter2"  # stays where it is
    try:
        raise ValueError("inner\x1b[31m\nforged=line")
    except ValueError as error:
        try:
            raise RuntimeError(len(password)) from error
        except RuntimeError as outer:
            return outer


def test_a_bugs_line_holds_its_traceback_without_local_variables(log):
    LogLines(slow_request=1).request_done(record(status=500, error=bug()))

    (line,) = log.lines()
    outer, inner = line["exception"]
    assert (outer["exc_type"], inner["exc_type"]) == ("RuntimeError", "ValueError")
    assert outer["frames"][-1]["name"] == "bug"
    assert "hunter2" not in json.dumps(line)


def test_a_person_reads_the_same_with_the_traceback_below(log):
    log.configure("console")
    LogLines(slow_request=1).request_done(record(status=500, error=bug()))

    text = log.text()
    first, *traceback = text.splitlines()
    assert first.endswith("  GET /api/getUsers  500  12.3 ms  RuntimeError")
    assert all(line.startswith("    ") for line in traceback if line)
    assert "hunter2" not in text
    assert "\x1b" not in text


FORGED = 'x\n{"level":"error"}\r\x1b[2J\x9b2J\u2028\x7f'


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_a_caller_sends_begins_a_line_or_moves_a_cursor(log, log_format):
    log.configure(log_format)
    LogLines(slow_request=1).request_done(record(path=FORGED))
    structlog.get_logger().info("ours", theirs=FORGED, nested=[FORGED])
    logging.getLogger("library").warning("theirs: %s", FORGED)

    # The console puts what does not fit below its line, indented.
    lines = re.sub(r"\n {10}", " ", log.text()).split("\n")
    assert len(lines) == 4
    assert lines.pop() == ""
    if log_format == "json":
        # What is in a string of JSON is not ours to mangle, as long as it stays in there.
        assert [json.loads(line)["event"][:4] for line in lines] == ["requ", "ours", "thei"]
        lines = lines[:1]
    assert all(line.isprintable() for line in lines)


def test_a_path_is_logged_no_longer_than_it_helps(log):
    LogLines(slow_request=1).request_done(record(path="/" + "x" * 100_000))
    assert len(log.text()) < 2000


def test_a_transition_says_why_and_when_the_next_try_is(log):
    breaker = CircuitBreaker("addEvent", trip=FailureCount(2, within=30), clock=lambda: 0.0)
    LogLines(slow_request=1).watch(breaker)

    def fail_twice():
        context.current.set(CallContext("abc"))
        for _ in range(2):
            breaker.acquire().failure()

    copy_context().run(fail_twice)
    breaker.reset()

    opened, closed = log.lines()
    assert (
        opened.items()
        >= {
            "level": "warning",
            "event": "breaker state changed",
            "request_id": "abc",
            "breaker": "addEvent",
            "old": "closed",
            "new": "open",
            "failures_in_window": 2,
            "next_try_s": 10.0,
        }.items()
    )
    assert opened["reason"] == "2 failures within 30 s"
    assert opened["message"] == "addEvent: closed → open (2 failures within 30 s)"
    assert closed["message"] == "addEvent: open → closed (reset by hand)"
    assert len(opened["trace_id"]) == 32
    assert (closed["level"], closed["new"], closed["next_try_s"]) == ("info", "closed", 0)


def test_a_failed_probe_says_why_it_failed(log):
    now = [0.0]
    breaker = CircuitBreaker(
        "addEvent", trip=FailureCount(1, within=30), cooldown=10, clock=lambda: now[0]
    )
    LogLines(slow_request=1).watch(breaker)
    breaker.acquire().failure(ValueError())
    now[0] = 10.0
    timeout = UpstreamTimeout("addEvent", "for clients", reason="timeout: no reply in time")
    breaker.acquire().failure(timeout)

    assert [line["message"] for line in log.lines()] == [
        "addEvent: closed → open (1 failures within 30 s)",
        "addEvent: open → half-open (cooldown elapsed)",
        "addEvent: half-open → open (a probe failed: timeout: no reply in time)",
    ]


def test_retries_and_their_end_are_told(log):
    lines = LogLines(slow_request=1)
    error = UpstreamTimeout("getUsers", "for clients", reason="timeout: no reply in time")
    signals = Signals()
    lines.listen(signals)
    signals.emit(Retried("getUsers", 1, error, 0.05))
    signals.emit(GaveUp("getUsers", 2, error, "budget"))
    signals.emit(GaveUp("getUsers", 3, ValueError(), "attempts"))

    retry, budget, attempts = log.lines()
    assert (retry["level"], retry["attempt"], retry["wait_s"]) == ("debug", 1, 0.05)
    assert (budget["level"], budget["attempt"], budget["why"]) == ("warning", 2, "budget")
    assert budget["reason"] == "timeout: no reply in time"
    assert attempts["error"] == "ValueError"


def test_a_changed_level_holds_for_all_lines_from_then_on(log):
    lines = LogLines(slow_request=1)

    def write():
        lines.request_done(record())
        structlog.get_logger().info("ours")
        logging.getLogger("library").info("theirs")
        return len(log.lines())

    set_level("warning")
    assert write() == 0
    set_level("info")
    assert write() == 3


def test_an_exception_that_is_being_handled_is_told(log):
    try:
        raise ValueError("told")
    except ValueError:
        structlog.get_logger().exception("ours")
        logging.getLogger("library").exception("theirs")
    structlog.get_logger().error("neither", exc_info=True)

    ours, theirs, neither = log.lines()
    assert ours["exception"][0]["exc_value"] == "told"
    assert theirs["exception"][0]["exc_value"] == "told"
    assert theirs["logger"] == "library"
    assert "exception" not in neither


@pytest.mark.anyio
async def test_lines_that_can_wait_are_written_together_in_pieces_that_stay_whole(anyio_backend):
    class Pieces(list):
        write = list.append

        def flush(self):
            pass

    pieces = Pieces()
    output = JsonLines(pieces)
    lines = [b"%04d" % number + b"." * 500 for number in range(20)]

    for line in lines[:-1]:
        output.write_soon(line)
    assert pieces == []
    output.write(lines[-1])

    assert b"".join(pieces).splitlines() == lines
    assert len(pieces) == 3
    assert all(len(piece) <= select.PIPE_BUF and piece.endswith(b"\n") for piece in pieces)


@pytest.mark.anyio
async def test_lines_that_can_wait_do_not_wait_longer_than_the_loop_is_busy(anyio_backend):
    stream = io.BytesIO()
    JsonLines(stream).write_soon(b"{}")

    await asyncio.sleep(0)

    assert stream.getvalue() == b"{}\n"


def test_a_reader_who_has_gone_harms_nobody():
    class Gone:
        def write(self, _line):
            raise BrokenPipeError

    JsonLines(Gone()).write(b"{}")


def test_connections_that_break_off_under_many_calls_are_told_once_a_minute(log):
    now = [1000.0]
    signals = Signals()
    LogLines(slow_request=1, clock=lambda: now[0]).listen(signals)
    for in_flight in (100, 101, 500):
        signals.emit(BrokenOff("getEventById", in_flight))
    now[0] += 59.9
    signals.emit(BrokenOff("getEventById", 300))
    now[0] += 0.1
    signals.emit(BrokenOff("addEvent", 300))

    first, second = log.lines()
    assert (first["level"], first["event"]) == ("warning", "upstream connections break off")
    assert "UPSTREAM_CONCURRENCY may be too high" in first["message"]
    assert (first["operation"], first["in_flight"]) == ("getEventById", 101)
    assert (second["operation"], second["in_flight"]) == ("addEvent", 300)

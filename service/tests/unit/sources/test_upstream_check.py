import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from event_service import errors
from event_service.models import Event, NewEvent, User
from event_service.sources.upstream_check import Finding, Recorder, UpstreamCheck, report

pytestmark = pytest.mark.anyio

TEA = Event("7", "1", "Tea", "at four")


class Upstream:
    """Answers with what it is given; an exception among it is raised after its status."""

    def __init__(self, recorder: Recorder, **answers: Any) -> None:
        self._recorder = recorder
        self._answers = {
            "users": [User("1", "Alice", ["7"]), User("2", "Bob", [])],
            "user": User("1", "Alice", ["7"]),
            "events": [TEA],
            "event": TEA,
            "add_event": "ours",
            **answers,
        }
        self.called: list[tuple[Any, ...]] = []
        self.events_of: Callable[[str], Awaitable[list[Event]]] | None = None
        if "events_of" in answers:
            self.events_of = self._events_of

    async def users(self) -> list[User]:
        return self._answer("users")

    async def user(self, user_id: str) -> User:
        return self._answer("user", user_id)

    async def events(self) -> list[Event]:
        return self._answer("events")

    async def event(self, event_id: str) -> Event:
        return self._answer("event", event_id)

    async def _events_of(self, user_id: str) -> list[Event]:
        return self._answer("events_of", user_id)

    async def add_event(self, event: NewEvent, *, event_id: str, idempotency_key: str) -> str:
        return self._answer("add_event", event.userId, event_id, idempotency_key)

    def _answer(self, method: str, *arguments: str) -> Any:
        self.called.append((method, *arguments))
        answer = self._answers[method]
        self._recorder(method, "GET", f"http://events.test/{'/'.join([method, *arguments])}")
        status, answer, *body = answer if isinstance(answer, tuple) else (200, answer)
        if status is not None:
            self._recorder.answered(status)
        if isinstance(answer, Exception):
            raise answer
        self._recorder.on_body(body[0] if body else msgspec.json.encode(answer))
        return answer


def checking(**answers: Any) -> tuple[Upstream, UpstreamCheck]:
    recorder = Recorder()
    upstream = Upstream(recorder, **answers)
    ticks = iter(range(1000))
    return upstream, UpstreamCheck(
        upstream, recorder, timeout=60, new_id=lambda: "ours", clock=lambda: next(ticks) / 1000
    )


async def test_each_read_is_called_once_for_the_first_user_and_its_first_event():
    upstream, check = checking()

    findings = await check.run()

    assert upstream.called == [("users",), ("events",), ("user", "1"), ("event", "7")]
    assert [(f.operation, f.call, f.status, f.records, f.fault) for f in findings] == [
        ("getUsers", "GET /users", 200, 2, ""),
        ("getEvents", "GET /events", 200, 1, ""),
        ("getUserById", "GET /user/1", 200, 1, ""),
        ("getEventById", "GET /event/7", 200, 1, ""),
        ("addEvent", "", None, None, ""),
    ]
    assert findings[0].seconds == pytest.approx(0.001)
    assert findings[-1].notes == ["not tried; --write adds an event"]


async def test_the_user_and_the_event_can_be_named():
    upstream, check = checking()

    findings = await check.run(user_id="5", event_id="9")

    assert upstream.called[2:] == [("user", "5"), ("event", "9")]
    other = "the reply has another id than the one that was asked for"
    assert findings[2].notes == findings[3].notes == [other]


async def test_one_call_for_all_events_of_a_user_takes_the_place_of_two():
    upstream, check = checking(events_of=[TEA, TEA])

    findings = await check.run()

    assert upstream.called == [("users",), ("events",), ("events_of", "1")]
    assert findings[2][:3] == ("getEventsByUserId", "GET /events_of/1", 200)
    assert findings[2].records == 2
    assert findings[3].notes == ["not needed beside getEventsByUserId"]


async def test_an_event_is_added_only_when_told_to():
    upstream, check = checking(add_event="55")

    findings = await check.run(write=True)

    assert upstream.called[-1] == ("add_event", "1", "ours", "ours")
    assert findings[-1].notes == ["stored under the upstream's id, 55"]


async def test_an_empty_upstream_is_well_and_says_what_could_not_be_tried():
    upstream, check = checking(users=[], events=[])

    findings = await check.run(write=True)

    assert upstream.called == [("users",), ("events",)]
    assert not any(finding.fault for finding in findings)
    assert "no user to ask for; name one with --user" in report(findings)


async def test_a_user_that_no_path_could_name_is_not_asked_for():
    upstream, check = checking(users=[User("a/b", "", []), User("2", "", [])])

    await check.run()

    assert ("user", "2") in upstream.called


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        ((404, errors.UserNotFound("1", reason="status 404")), "the path of getUserById"),
        ((401, errors.UpstreamRefused("o", "No.", reason="status 401")), "UPSTREAM_HEADERS"),
        ((403, errors.UpstreamRefused("o", "No.", reason="status 403")), "UPSTREAM_HEADERS"),
        ((302, errors.UpstreamRefused("o", "No.", reason="status 302")), "UPSTREAM_PATHS"),
        (
            (503, errors.UpstreamUnavailable("o", "Later.", reason="status 503", retry_after=None)),
            "UPSTREAM_CONCURRENCY",
        ),
        (
            (500, errors.UpstreamFailed("o", "It failed.", reason="status 500")),
            "the upstream fails",
        ),
        ((200, errors.UpstreamMisshapen("o", "What?", reason="$: no")), "invalid data"),
        (
            (200, errors.UpstreamNonsense("o", "What?", reason="the body is not JSON")),
            "UPSTREAM_PATHS",
        ),
        (
            (200, errors.UpstreamNonsense("o", "What?", reason="more than 9 bytes")),
            "UPSTREAM_MAX_BODY",
        ),
        ((200, errors.UpstreamTimeout("o", "Slow.", reason="timeout")), "UPSTREAM_TIMEOUT"),
        ((None, errors.UpstreamTimeout("o", "Slow.", reason="timeout")), "UPSTREAM_URL"),
        ((None, errors.UpstreamFailed("o", "No.", reason="Connection refused")), "UPSTREAM_URL"),
        (
            (None, errors.UpstreamFailed("o", "No.", reason="invalid peer certificate")),
            "UPSTREAM_CA_FILE",
        ),
    ],
)
async def test_a_fault_is_reported_with_the_setting_that_fixes_it(answer, fix):
    _, check = checking(user=answer)

    findings = await check.run()

    wrong = findings[2]
    assert (wrong.operation, wrong.status, wrong.records) == ("getUserById", answer[0], None)
    assert wrong.fault == answer[1].reason
    assert fix in wrong.fix
    assert [finding.operation for finding in findings if finding.fault] == ["getUserById"]


async def test_what_was_tolerated_is_told():
    body = b'{"id":"7","userId":"1","title":"Tea","description":null}'
    _, check = checking(event=(200, Event("7", "1", "Tea", ""), body))

    findings = await check.run()

    assert findings[3].notes == ['description: null, taken as ""']


def test_the_report_is_a_table_with_faults_and_notes_below_their_operations():
    findings = [
        Finding("getUsers", "GET /users", 200, 0.0123, 3, ['name: null, taken as "" (1 of 3)']),
        Finding("getEventById", "GET /e?id=1", None, 2.0, fault="It refused.", fix="THE_URL"),
        Finding("addEvent", notes=["not tried"]),
    ]

    assert report(findings).splitlines() == [
        "operation     call         status     time  records",
        "getUsers      GET /users   200       12 ms        3  ok",
        '    name: null, taken as "" (1 of 3)',
        "getEventById  GET /e?id=1  none    2000 ms        -  wrong",
        "    It refused.",
        "    fix: THE_URL",
        "addEvent      not tried",
    ]


async def test_a_call_that_takes_too_long_is_given_up():
    recorder = Recorder()
    upstream = Upstream(recorder)

    async def never() -> list[Event]:
        recorder("events", "GET", "http://events.test/events")
        await asyncio.Event().wait()
        raise AssertionError

    upstream.events = never  # type: ignore[method-assign]
    check = UpstreamCheck(upstream, recorder, timeout=0.05, new_id=lambda: "ours")

    findings = await check.run()

    wrong = findings[1]
    assert (wrong.operation, wrong.fault) == ("getEvents", "timeout: no reply within 0.05 s")
    assert wrong.fix.startswith("EVENT_SERVICE_UPSTREAM_TIMEOUT; ")

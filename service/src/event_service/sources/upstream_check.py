"""Calls each read operation of an upstream once and reports the results to people."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from event_service.errors import (
    EventServiceError,
    UpstreamMisshapen,
    UpstreamNonsense,
    UpstreamTimeout,
)
from event_service.models import Event, NewEvent, User, is_id
from event_service.sources.guarded import Source
from event_service.sources.tolerances import tolerated

TITLE = "Written by event-service check-upstream"
# The settings to change for each kind of fault.
_PATHS = "EVENT_SERVICE_UPSTREAM_PATHS (the path of {operation}), or EVENT_SERVICE_UPSTREAM_URL"
_HEADERS = "EVENT_SERVICE_UPSTREAM_HEADERS (the credentials)"
_URL = "EVENT_SERVICE_UPSTREAM_URL (host and port), EVENT_SERVICE_UPSTREAM_PROXY"
_CA = "EVENT_SERVICE_UPSTREAM_CA_FILE, EVENT_SERVICE_UPSTREAM_CLIENT_CERT"
_TIMEOUT = "EVENT_SERVICE_UPSTREAM_TIMEOUT"
_MAX_BODY = "EVENT_SERVICE_UPSTREAM_MAX_BODY"
_CONCURRENCY = "EVENT_SERVICE_UPSTREAM_CONCURRENCY (lower), and try again later"
_DATA = "nothing here; the upstream sends invalid data"
_FAILS = "nothing here; the upstream fails"
_BY_STATUS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: _HEADERS,
    HTTPStatus.FORBIDDEN: _HEADERS,
    HTTPStatus.TOO_MANY_REQUESTS: _CONCURRENCY,
    HTTPStatus.SERVICE_UNAVAILABLE: _CONCURRENCY,
}
_ALIGNED = "<<<>><"


class CheckedSource(Source, Protocol):
    """The source that is checked, over HTTP."""

    events_of: Callable[[str], Awaitable[list[Event]]] | None


class Finding(NamedTuple):
    """The result of one operation.

    `seconds` is None if it was not called; then `notes` says why, otherwise what was tolerated.
    `fault` and `fix` are empty if there was no fault.
    """

    operation: str
    call: str = ""
    status: int | None = None
    seconds: float | None = None
    records: int | None = None
    notes: Sequence[str] = ()
    fault: str = ""
    fix: str = ""


class Recorder:
    """Records what goes over the wire, as the source's `trace` and `on_body`."""

    headers: dict[str, str]

    def __init__(self) -> None:
        self.headers = {}
        self.call = ""
        self.status: int | None = None
        self.body = b""

    def __call__(self, operation: str, method: str, url: str) -> Self:  # noqa: ARG002  a Trace
        parts = urlsplit(url)
        self.call = f"{method} {parts.path}{f'?{parts.query}' if parts.query else ''}"
        self.status, self.body = None, b""
        return self

    def on_body(self, body: bytes) -> None:
        self.body = body

    def answered(self, status: int) -> None:
        self.status = status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        pass


class UpstreamCheck:
    """Checks one source; `recorder` must record its calls."""

    def __init__(
        self,
        source: CheckedSource,
        recorder: Recorder,
        *,
        timeout: float,
        new_id: Callable[[], str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`timeout` is for one call, in seconds."""
        self._source = source
        self._timeout = timeout
        self._recorder = recorder
        self._new_id = new_id
        self._clock = clock
        self.findings: list[Finding] = []

    async def run(
        self, *, user_id: str | None = None, event_id: str | None = None, write: bool = False
    ) -> list[Finding]:
        """Check all operations. By default with the first user and that user's first event.

        `write` adds one event for that user. Errors of the upstream become findings.
        """
        users = await self._call("getUsers", self._source.users())
        if user_id is None:
            user_id = next((user.id for user in users or () if is_id(user.id)), None)
        await self._call("getEvents", self._source.events())
        if self._source.events_of is not None:
            await self._of_user("getEventsByUserId", user_id, self._source.events_of)
            for operation in ("getUserById", "getEventById"):
                self._skip(operation, "not needed beside getEventsByUserId")
        else:
            user = await self._of_user("getUserById", user_id, self._source.user)
            if event_id is None and user is not None:
                event_id = next(filter(is_id, user.events), None)
            if event_id is None:
                self._skip("getEventById", "no event to ask for; name one with --event")
            else:
                event = await self._call("getEventById", self._source.event(event_id))
                self._compare(event, event_id)
        await self._add(user_id, write=write)
        return self.findings

    async def _of_user(
        self, operation: str, user_id: str | None, read: Callable[[str], Awaitable[Any]]
    ) -> Any:
        if user_id is None:
            return self._skip(operation, "no user to ask for; name one with --user")
        found = await self._call(operation, read(user_id))
        self._compare(found, user_id)
        return found

    async def _add(self, user_id: str | None, *, write: bool) -> None:
        if not write:
            return self._skip("addEvent", "not tried; --write adds an event")
        if user_id is None:
            return self._skip("addEvent", "no user to add it for; name one with --user")
        ours = self._new_id()
        event = NewEvent(user_id, TITLE)
        adding = self._source.add_event(event, event_id=ours, idempotency_key=ours)
        stored_as = await self._call("addEvent", adding)
        if stored_as is not None:
            whose = "our id" if stored_as == ours else f"the upstream's id, {stored_as}"
            self._note(f"stored under {whose}")
        return None

    async def _call(self, operation: str, call: Awaitable[Any]) -> Any:
        began = self._clock()
        try:
            found = await self._in_time(operation, call)
        except EventServiceError as error:
            took = self._clock() - began
            status = self._recorder.status
            fault = getattr(error, "reason", "") or str(error)
            fix = _fix(error, status, fault).format(operation=operation)
            self.findings.append(
                Finding(operation, self._recorder.call, status, took, fault=fault, fix=fix)
            )
            return None
        took = self._clock() - began
        notes = [] if operation == "addEvent" else tolerated(operation, self._recorder.body)
        records = len(found) if isinstance(found, list) else 1
        status = self._recorder.status
        self.findings.append(Finding(operation, self._recorder.call, status, took, records, notes))
        return found

    async def _in_time(self, operation: str, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError:
            what = "reply" if self._recorder.status is None else "whole body"
            reason = f"timeout: no {what} within {self._timeout:g} s"
            raise UpstreamTimeout(operation, reason, reason=reason) from None

    def _skip(self, operation: str, why: str) -> None:
        self.findings.append(Finding(operation, notes=[why]))

    def _compare(self, found: User | Event | list[Event] | None, asked: str) -> None:
        if isinstance(found, User | Event) and found.id != asked:
            self._note("the reply has another id than the one that was asked for")

    def _note(self, note: str) -> None:
        last = self.findings[-1]
        self.findings[-1] = last._replace(notes=[*last.notes, note])


def _fix(error: Exception, status: int | None, reason: str) -> str:
    if status is None:
        return _fix_for_silence(error, reason.lower())
    if isinstance(error, UpstreamMisshapen):
        return _DATA
    if isinstance(error, UpstreamTimeout):
        return _TIMEOUT
    if isinstance(error, UpstreamNonsense) and "more than" in reason:
        return _MAX_BODY
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return _FAILS if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _PATHS


def _fix_for_silence(error: Exception, reason: str) -> str:
    if isinstance(error, UpstreamTimeout):
        return f"{_TIMEOUT}; {_URL}"
    return _CA if "certificate" in reason or "tls" in reason else _URL


def report(findings: Sequence[Finding]) -> str:
    """The findings as a table for a terminal, with faults and notes below their operations."""
    rows = [("operation", "call", "status", "time", "records", ""), *map(_row, findings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(rows[0], widths)]
    for row, finding in zip(rows[1:], findings, strict=True):
        if finding.seconds is None:
            # Not in a cell: a sentence would make the column too wide.
            lines.append(f"{finding.operation:{widths[0]}}  {finding.notes[0]}")
            continue
        lines += [_line(row, widths), *(f"    {note}" for note in finding.notes)]
        if finding.fault:
            lines += [f"    {finding.fault}", f"    fix: {finding.fix}"]
    return "\n".join(lines)


def _row(finding: Finding) -> tuple[str, ...]:
    if finding.seconds is None:
        return finding.operation, "", "", "", "", ""
    return (
        finding.operation,
        finding.call,
        "none" if finding.status is None else str(finding.status),
        f"{finding.seconds * 1000:.0f} ms",
        "-" if finding.records is None else str(finding.records),
        "wrong" if finding.fault else "ok",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (f"{c:{how}{width}}" for c, width, how in zip(row, widths, _ALIGNED, strict=True))
    return "  ".join(cells).rstrip()

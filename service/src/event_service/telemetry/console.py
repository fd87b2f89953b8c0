"""Log lines for a person at a terminal."""

import re
import textwrap
import traceback
from collections.abc import Iterator, MutableMapping
from http import HTTPStatus
from typing import Any

from event_service.telemetry.printable import printable

WIDTH = 100
# Columns kept for a path and an id, however long the rest is.
SHORTEST_PATH = 26
SHORTEST_ID = 13

GREEN, YELLOW, RED, DIM, BOLD = "32", "33", "31", "2", "1"
_LOUD = {"warning": YELLOW, "error": RED, "critical": RED}
# Members that the line already says in words, or that only programs need.
_LEFT_OUT = {"timestamp", "level", "event", "exc_info", "settings"}
_IDS = {"request_id", "trace_id"}
# What the router raises, for a path or method that is none.
_ROUTING = "HTTPException"
_word = re.compile(r"(?<=[a-z])(?=[A-Z])")


class ConsoleLines:
    """Renders an event as one line of text, with an exception below it.

    A request takes at most `WIDTH` columns; other lines go on below themselves. Ids are shown where
    something failed. It is structlog's last processor.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
        exception = line.pop("exception", None)
        if line["event"] == "request" and "status" in line:
            parts = self._request(line)
        elif line["event"] == "breaker state changed":
            parts = iter([self._paint(printable(line["message"]), _LOUD.get(line["level"], GREEN))])
        elif line["event"] == "upstream retries given up":
            parts = self._given_up(line)
        else:
            parts = self._other(line)
        text = "  ".join([self._paint(line["timestamp"], DIM), *parts])
        return text if exception is None else f"{text}\n{exception}"

    def _request(self, line: MutableMapping[str, Any]) -> Iterator[str]:
        status = line["status"]
        took = _duration(line["duration_ms"])
        told = " ".join(_told(line))
        failed = line["level"] == "error" or "reason" in line
        identity = printable(line.get("request_id", "")) if failed else ""
        spaces = 4 + 2 * bool(told) + 2 * bool(identity)
        room = WIDTH - len(f"{line['timestamp']}  {line['method']} {status}{took}") - spaces
        # When space is short, keep the reason first, then the path, then the id.
        shortest_id = min(len(identity), SHORTEST_ID)
        path = _head(printable(line["path"]), max(room - len(told) - shortest_id, SHORTEST_PATH))
        told = _head(told, room - len(path) - shortest_id)
        identity = _tail(identity, room - len(path) - len(told))
        yield f"{line['method']} {self._paint(path, BOLD)}"
        yield self._paint(str(status), _colour(status))
        yield took
        if told:
            yield told
        if identity:
            yield self._paint(identity, DIM)

    def _given_up(self, line: MutableMapping[str, Any]) -> Iterator[str]:
        """The request's own line, which comes next, has the ids."""
        told = f"{line['operation']}: {line['reason']}" if line["reason"] else line["operation"]
        text = printable(f"{told} (given up after attempt {line['attempt']}: {line['why']})")
        yield self._paint(_head(text, WIDTH - len(f"{line['timestamp']}  ")), YELLOW)

    def _other(self, line: MutableMapping[str, Any]) -> Iterator[str]:
        loud = _LOUD.get(line["level"])
        if loud:
            yield self._paint(line["level"], loud)
        event = printable(str(line["event"]))
        left_out = _LEFT_OUT if loud else _LEFT_OUT | _IDS
        members = " ".join(f"{k}={_value(v)}" for k, v in line.items() if k not in left_out)
        words = [line["timestamp"], *([line["level"]] if loud else []), event, members]
        if len("  ".join(words)) > WIDTH:
            yield f"{event}\n{_below(members, len(line['timestamp']) + 2)}"
            return
        yield event
        if members:
            yield members

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and text else text


def _below(members: str, column: int) -> str:
    """Indent and wrap the text without breaking words, so that an id can be copied."""
    indent = " " * column
    return textwrap.fill(
        members,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def readable_exception(exception: BaseException) -> str:
    lines = "".join(traceback.format_exception(exception)).splitlines()
    return textwrap.indent("\n".join(map(printable, lines)), "    ")


def _told(line: MutableMapping[str, Any]) -> Iterator[str]:
    """The details worth reading beside the status."""
    error = line.get("error")
    if operation := line.get("operation"):
        yield printable(f"{operation}: {line.get('reason', '')}")
    elif error:
        if error == _ROUTING:
            yield HTTPStatus(line["status"]).phrase.lower()
        else:
            bug = line["status"] == HTTPStatus.INTERNAL_SERVER_ERROR
            yield error if bug else _words(error)
    if line.get("slow"):
        yield "slow"


def _words(name: str) -> str:
    """`CircuitOpen` as `circuit open`."""
    return _word.sub(" ", name).lower()


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:  # noqa: PLR2004  a second
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds / 1000:.2f} s"


def _colour(status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST:
        return GREEN
    refused = status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.SERVICE_UNAVAILABLE
    return YELLOW if refused else RED


def _value(value: object) -> str:
    return printable(value if isinstance(value, str) else repr(value))


def _head(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _tail(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]

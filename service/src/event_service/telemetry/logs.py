"""Structured logs: JSON lines for machines, colours for a person at a terminal."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any, Protocol

import msgspec
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer

from event_service import context
from event_service.telemetry.console import ConsoleLines, readable_exception

EventDict = MutableMapping[str, Any]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
# The root logger's level applies to our lines too: one switch, changeable at any time.
_root = logging.getLogger()
_worker = 1
_node = ""
# Local variables may hold secrets.
_transform = ExceptionDictTransformer(show_locals=False)


class Output(Protocol):
    """Takes one or more whole lines, each with its line end."""

    def write(self, block: bytes, /) -> object: ...

    def flush(self) -> None: ...


class JsonLines:
    """Writes whole lines in order, in blocks that a pipe takes atomically.

    If the reader of the stream is gone, lines are dropped: a request does not fail for its log
    line. structlog uses it as its logger.
    """

    def __init__(self, stream: Output) -> None:
        self._stream = stream
        self._waiting: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Write the line now, after those already waiting."""
        self._waiting.append(line)
        self.flush()

    def write_soon(self, line: bytes) -> None:
        """Write the line before the event loop sleeps, together with others from this turn.

        A system call costs more than making the line, so a busy loop writes several at once.
        Without a running loop the line is written now.
        """
        self._waiting.append(line)
        if len(self._waiting) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.flush()

    def flush(self) -> None:
        lines, self._waiting = self._waiting, []
        try:
            for block in _blocks(lines):
                self._stream.write(block)
                self._stream.flush()
        except OSError:
            pass

    debug = info = warning = error = critical = write


def _blocks(lines: list[bytes]) -> Iterator[bytes]:
    """The lines, joined into blocks that a pipe takes atomically."""
    block = b""
    for line in lines:
        if block and len(block) + len(line) >= PIPE_BUF:
            yield block
            block = b""
        block += line + b"\n"
    if block:
        yield block


class _Text:
    """A text file on top of an Output."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, text: str) -> None:
        self._output.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        with suppress(OSError):
            self._output.flush()


def lost_lines(count: int) -> bytes:
    """The log line that says how many lines were dropped."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {"timestamp": now, "level": "warning", "event": "log lines dropped"}
    return msgspec.json.encode({**line, "worker": current_worker(), "lines": count})


def configure_logging(
    *,
    level: str,
    log_format: str,
    worker: int = 1,
    node: str = "",
    output: Output | None = None,
) -> None:
    """Send our own lines, and those of the standard `logging`, to standard output.

    `log_format` is `json`, `console`, or `auto`: `console` on a terminal and `json` elsewhere.
    Every line carries `worker`, the number of this process within the service, and `node`, its name
    in the cluster, unless they are 0 and "". `output` replaces standard output.
    """
    global _worker, _node
    _worker, _node = worker, node
    if output is None:
        output = sys.stdout.buffer
    console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        # Local time, for people.
        structlog.processors.TimeStamper("%H:%M:%S" if console else "iso", utc=not console),
        _add_call,
    ]
    factory: Callable[..., Any]
    # structlog wants a file object; this one writes to our output.
    text: Any = _Text(output)
    if console:
        lines = ConsoleLines(colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
        finish: list[structlog.types.Processor] = [_readable, lines]
        finish_text = finish
        factory = structlog.PrintLoggerFactory(text)
    else:
        finish, finish_text = [_add_worker, _json], [_add_worker, _json, _as_text]
        json_lines = JsonLines(output)
        factory = lambda *_names: json_lines  # noqa: E731
    structlog.configure(
        processors=[_drop_unwanted, *shared, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(text)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, *finish_text],
        )
    )
    logging.basicConfig(handlers=[handler], level=LEVELS[level], force=True)


def current_worker() -> int:
    """The number of this process within the service, from 1; 0 is the supervisor."""
    return _worker


def current_node() -> str:
    """The name of this process in its cluster; "" without a cluster."""
    return _node


def current_level() -> str:
    return logging.getLevelName(_root.level).lower()


def set_level(level: str) -> None:
    """Write only lines of this level and above, in this process."""
    _root.setLevel(LEVELS[level])


def is_wanted(level: int) -> bool:
    return level >= _root.level


def _drop_unwanted(_logger: object, method: str, line: EventDict) -> EventDict:
    if not is_wanted(LEVELS[method]):
        raise structlog.DropEvent
    return line


def _add_call(_logger: object, _method: str, line: EventDict) -> EventDict:
    call = context.current.get()
    if call is not None:
        line["request_id"], line["trace_id"] = call.request_id, call.trace_id
    return line


def _add_worker(_logger: object, _method: str, line: EventDict) -> EventDict:
    line.setdefault("worker", _worker)
    if _node:
        line.setdefault("node", _node)
    return line


def describe(exception: BaseException) -> list[dict[str, Any]]:
    """The origins of an exception and its causes, innermost last, ready to encode."""
    return _transform((type(exception), exception, exception.__traceback__))


def _exception(line: EventDict) -> BaseException | None:
    found = line.pop("exc_info", None) or None
    if found is True:
        return sys.exception()
    return found[1] if isinstance(found, tuple) else found


_FIRST = ("timestamp", "level", "event", "request_id", "trace_id")


def _json(_logger: object, _method: str, line: EventDict) -> bytes:
    exception = _exception(line)
    if exception is not None:
        line["exception"] = describe(exception)
    first = {name: line.pop(name) for name in _FIRST if name in line}
    return msgspec.json.encode({**first, **line}, enc_hook=repr)


def _as_text(_logger: object, _method: str, line: Any) -> str:
    text: str = line.decode()
    return text


def _readable(_logger: object, _method: str, line: EventDict) -> EventDict:
    exception = _exception(line)
    if exception is not None:
        line["exception"] = readable_exception(exception)
    return line

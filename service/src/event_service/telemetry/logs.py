"""Structured logs: JSON lines for machines, colours for a person at a terminal."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from event_service.errors import UpstreamError
from event_service.libs import call_context
from event_service.telemetry.records import RequestRecord
from event_service.telemetry.signals import Listener
from halfopen import CircuitBreaker, StateChanged

EventDict = MutableMapping[str, Any]


def configure_logging(*, level: str, log_format: str) -> None:
    """Send our own lines, and those of the standard `logging`, to standard output.

    `log_format` is `json`, `console`, or `auto`: `console` on a terminal and `json` elsewhere.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.add_log_level,
        _add_call,
    ]
    renderer: structlog.types.Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        factory: Callable[..., Any] = structlog.PrintLoggerFactory()
    else:
        shared.append(structlog.processors.dict_tracebacks)
        renderer = _json
        factory = structlog.BytesLoggerFactory(sys.stdout.buffer)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer if console else _json_text,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)


def _add_call(_logger: object, _method: str, line: EventDict) -> EventDict:
    call = call_context.current.get()
    if call is not None:
        line.setdefault("request_id", call.request_id)
        line.setdefault("trace_id", call.trace_id)
    return line


def _json(_logger: object, _method: str, line: EventDict) -> bytes:
    head = {name: line.pop(name, None) for name in ("timestamp", "level", "event")}
    return msgspec.json.encode({**head, **line}, enc_hook=repr)


def _json_text(logger: object, method: str, line: EventDict) -> str:
    return _json(logger, method, line).decode()


class LogLines(Listener):
    """Writes what an operator reads: requests, breaker transitions, retries that gave up."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def request_done(self, record: RequestRecord) -> None:
        write = (
            self._log.error if record.status >= HTTPStatus.INTERNAL_SERVER_ERROR else self._log.info
        )
        line: dict[str, Any] = {
            "method": record.method,
            "route": record.route,
            "path": record.path,
            "status": record.status,
            "duration_ms": round(record.duration * 1000, 2),
            "client": record.client,
            "upstream_calls": record.upstream_calls,
        }
        error = record.error
        if error is not None:
            line["error"] = type(error).__name__
            if isinstance(error, UpstreamError):
                line["operation"], line["reason"] = error.operation, error.reason
            if record.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                line["exc_info"] = error
        write("request", **line)

    def watch(self, breaker: CircuitBreaker) -> None:
        breaker.on(StateChanged, self._state_changed)

    def _state_changed(self, event: StateChanged) -> None:
        snapshot = event.breaker.snapshot()
        self._log.warning(
            "breaker state changed",
            breaker=event.breaker.name,
            old=event.old.value,
            new=event.new.value,
            reason=event.reason,
            retry_after_s=snapshot.retry_after,
        )

    def retried(self, operation: str, attempt: int, error: Exception, wait: float) -> None:
        self._log.debug(
            "upstream retry", operation=operation, attempt=attempt, error=repr(error), wait_s=wait
        )

    def gave_up(self, operation: str, error: Exception, attempt: int, reason: str) -> None:
        self._log.warning(
            "upstream retries given up",
            operation=operation,
            attempt=attempt,
            error=type(error).__name__,
            why=reason,
        )

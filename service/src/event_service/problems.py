"""The one table from error to HTTP status, and the problem details of RFC 9457."""

import math
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException

from event_service import errors
from halfopen import CircuitOpen


class Row(NamedTuple):
    status: int
    slug: str
    title: str


UPSTREAM_ERROR = Row(502, "upstream-error", "The upstream failed")
UPSTREAM_TIMEOUT = Row(504, "upstream-timeout", "The upstream took too long")
CIRCUIT_OPEN = Row(503, "circuit-open", "Circuit open")
INTERNAL_ERROR = Row(500, "internal-error", "Internal error")
NOT_FOUND = Row(404, "not-found", "Not found")

# An unlisted error takes the row of its nearest listed ancestor.
TABLE: dict[type[Exception], Row] = {
    errors.InvalidRequest: Row(400, "invalid-request", "Invalid request"),
    errors.ValidationFailed: Row(422, "validation-failed", "Validation failed"),
    errors.UnsupportedMediaType: Row(415, "unsupported-media-type", "Unsupported media type"),
    errors.PayloadTooLarge: Row(413, "payload-too-large", "Payload too large"),
    errors.RequestTimeout: Row(408, "request-timeout", "Request timeout"),
    errors.Unauthorized: Row(401, "unauthorized", "Unauthorized"),
    errors.Forbidden: Row(403, "forbidden", "Forbidden"),
    errors.UserNotFound: Row(404, "user-not-found", "User not found"),
    errors.DeliveryNotFound: Row(404, "delivery-not-found", "Delivery not found"),
    errors.IdempotencyKeyReused: Row(422, "idempotency-key-reused", "Idempotency-Key reused"),
    errors.OutboxUnavailable: Row(503, "outbox-unavailable", "The outbox cannot store"),
    errors.UpstreamError: UPSTREAM_ERROR,
    errors.UpstreamRejected: Row(422, "upstream-rejected", "The upstream refused the event"),
    errors.UpstreamConflict: Row(409, "upstream-conflict", "The event conflicts with another"),
    errors.UpstreamUnavailable: Row(503, "upstream-unavailable", "The upstream is unavailable"),
    CircuitOpen: CIRCUIT_OPEN,
    errors.Overloaded: Row(503, "overloaded", "Overloaded"),
    errors.UpstreamTimeout: UPSTREAM_TIMEOUT,
    errors.DeadlineExceeded: UPSTREAM_TIMEOUT,
    errors.RateLimited: Row(429, "rate-limited", "Rate limited"),
    Exception: INTERNAL_ERROR,
}

# Refusals by the router itself.
_ROUTING: dict[int, Row] = {
    404: NOT_FOUND,
    405: Row(405, "method-not-allowed", "Method not allowed"),
}

ROWS = frozenset([*TABLE.values(), *_ROUTING.values()])


class Problem(NamedTuple):
    """`members` is the problem's JSON object, ready to encode; `headers` accompany it."""

    row: Row
    members: dict[str, Any]
    headers: dict[str, str]

    def body(self, *, instance: str, request_id: str) -> bytes:
        return msgspec.json.encode({**self.members, "instance": instance, "request_id": request_id})


def problem_for(error: Exception) -> Problem:
    """What a client may know about the error: its row, its own members, its headers."""
    if isinstance(error, CircuitOpen):
        return _circuit_open(error)  # apart: an outage asks for it thousands of times a second
    row = _row(error)
    members = _members(row, _detail(error, row))
    headers: dict[str, str] = {}
    match error:
        case errors.ValidationFailed():
            members["errors"] = [{"path": path, "message": text} for path, text in error.errors]
        case errors.UpstreamRejected():
            members["upstream_status"] = error.upstream_status
        case errors.Overloaded() | errors.RateLimited() | errors.OutboxUnavailable():
            headers["retry-after"] = _whole_seconds(error.retry_after)
        case errors.UpstreamUnavailable():
            headers["retry-after"] = _whole_seconds(error.retry_after or 1.0)
        case errors.Unauthorized():
            headers["www-authenticate"] = "Bearer"
        case HTTPException(status_code=405):
            # The router keeps them in a set, whose order differs between processes.
            methods = (error.headers or {}).get("Allow", "")
            headers["allow"] = ", ".join(sorted(methods.split(", ")))
        case _:
            pass
    return Problem(row, members, headers)


def _circuit_open(error: CircuitOpen) -> Problem:
    name, wait = error.name, _whole_seconds(error.retry_after)
    members = _members(
        CIRCUIT_OPEN, f"The {name} circuit is {error.state}; the next try is in {wait} s."
    )
    members["breaker"] = name
    return Problem(CIRCUIT_OPEN, members, {"retry-after": wait})


def _members(row: Row, detail: str) -> dict[str, Any]:
    return {
        "type": f"/problems/{row.slug}",
        "title": row.title,
        "status": row.status,
        "detail": detail,
    }


def _row(error: Exception) -> Row:
    if isinstance(error, HTTPException):
        return _ROUTING.get(error.status_code, INTERNAL_ERROR)
    row = TABLE.get(type(error))
    if row is not None:
        return row
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def _detail(error: Exception, row: Row) -> str:
    match error:
        case errors.EventServiceError():
            return str(error)
        case HTTPException(status_code=404):
            return "There is nothing at this path."
        case HTTPException(status_code=405):
            return "This path does not answer to this method."
        case _:
            return f"{row.title}. The request id leads the operators to the cause."


def _whole_seconds(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))

"""Parts of the OpenAPI document: examples, headers, parameters and schemas."""

from typing import Any

from starlette.exceptions import HTTPException

from event_service import errors
from event_service.models import ID_PATTERN, ID_WORDS
from event_service.problems import Problem, problem_for
from halfopen import CircuitOpen, State

Json = dict[str, Any]

EVENT_ID = "0192f0c1-2e6a-7c3b-9d1e-5a4b3c2d1e0f"
USER = {"id": "1", "name": "Alice Johnson", "events": ["101", "102"]}
EVENT = {"id": "101", "userId": "1", "title": "Standup", "description": "Every morning at nine"}
NEW_EVENT = {"userId": "1", "title": "Standup", "description": "Every morning at nine"}

# One error of each kind, and a path where it may happen. Its problem document is the example.
_SAMPLES: tuple[tuple[Exception, str], ...] = (
    (errors.InvalidRequest("The body is not JSON."), "/api/addEvent"),
    (
        errors.ValidationFailed([("$.title", "is required"), ("$.colour", "is not a known field")]),
        "/api/addEvent",
    ),
    (errors.UnsupportedMediaType("The body must be application/json in UTF-8."), "/api/addEvent"),
    (errors.PayloadTooLarge("A body may have at most 65536 bytes."), "/api/addEvent"),
    (errors.RequestTimeout("The body did not arrive in time."), "/api/addEvent"),
    (errors.Unauthorized("This is for operators: send the token, or sign in."), "/metrics"),
    (errors.Forbidden("This may not be asked for by another site."), "/dashboard/session"),
    (errors.UserNotFound("99"), "/api/getEventsByUserId/99"),
    (
        errors.UpstreamRejected(
            "addEvent",
            "The upstream refused the event for good; do not repeat the call.",
            reason="",
            upstream_status=422,
        ),
        "/api/addEvent",
    ),
    (
        errors.UpstreamConflict(
            "addEvent",
            "The upstream says that the event conflicts with what it has; do not repeat the call.",
            reason="",
        ),
        "/api/addEvent",
    ),
    (errors.DeliveryNotFound(), f"/api/addEvent/{EVENT_ID}"),
    (errors.IdempotencyKeyReused(), "/api/addEvent"),
    (errors.OutboxUnavailable(), "/api/addEvent"),
    (HTTPException(404), "/api/getUser"),
    (HTTPException(405, headers={"Allow": "GET, HEAD"}), "/api/getUsers"),
    (
        errors.RateLimited("This client is over its rate of requests.", retry_after=1),
        "/api/getUsers",
    ),
    (RuntimeError(), "/api/getUsers"),
    (
        errors.UpstreamFailed("getUsers", "The upstream broke the connection.", reason=""),
        "/api/getUsers",
    ),
    (
        errors.UpstreamUnavailable(
            "getUsers", "The upstream asked for a pause.", reason="", retry_after=5
        ),
        "/api/getUsers",
    ),
    (CircuitOpen("addEvent", State.OPEN, 9.2, None), "/api/addEvent"),
    (errors.Overloaded("Too many requests are in flight."), "/api/getUsers"),
    (
        errors.DeadlineExceeded("There was no answer within the time a request has."),
        "/api/getUsers",
    ),
)


def _problems() -> dict[str, tuple[Problem, str]]:
    problems = [(problem_for(error), path) for error, path in _SAMPLES]
    return {problem.row.slug: (problem, path) for problem, path in problems}


# By slug: an example problem, and the path of its request.
PROBLEMS = _problems()

PROBLEM: Json = {
    "title": "Problem",
    "description": "Problem details (RFC 9457)",
    "type": "object",
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "What kind of problem: the address of a page about it",
        },
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What went wrong this time"},
        "instance": {"type": "string", "description": "The path that was asked for"},
        "request_id": {"type": "string", "description": "As in X-Request-ID"},
        "errors": {
            "type": "array",
            "minItems": 1,
            "description": "Every fault of a body (validation-failed)",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                "required": ["path", "message"],
                "additionalProperties": False,
            },
        },
        "breaker": {"type": "string", "description": "Which circuit is open (circuit-open)"},
        "upstream_status": {
            "type": "integer",
            "description": "The status from the events API (upstream-rejected)",
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "additionalProperties": False,
    "example": {
        **PROBLEMS["user-not-found"][0].members,
        "instance": "/api/getEventsByUserId/99",
        "request_id": EVENT_ID,
    },
}

_EVENT_PROBLEM = {
    "type": "object",
    "description": "The id of an event that could not be read, and the problem with it",
    "properties": {
        "id": {"type": "string"},
        **{name: PROBLEM["properties"][name] for name in ("type", "title", "status", "detail")},
        "breaker": PROBLEM["properties"]["breaker"],
    },
    "required": ["id", "type", "title", "status", "detail"],
    "additionalProperties": False,
}


def _result(properties: Json, example: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "example": example,
    }


RESULTS: Json = {
    "PartialEvents": _result(
        {
            "events": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
            "errors": {"type": "array", "items": _EVENT_PROBLEM},
            "partial": {"type": "boolean", "description": "True if there are errors"},
        },
        {
            "events": [EVENT],
            "errors": [{"id": "102", **PROBLEMS["upstream-error"][0].members}],
            "partial": True,
        },
    ),
    "Added": _result(
        {
            "success": {"const": True},
            "id": {"type": "string", "description": "The id of the stored event"},
        },
        {"success": True, "id": EVENT_ID},
    ),
    "Accepted": _result(
        {
            "id": {"type": "string", "description": "The id of the delivery and of the event"},
            "status": {"enum": ["queued", "delivered", "refused", "dead"]},
        },
        {"id": EVENT_ID, "status": "queued"},
    ),
    "Delivery": _result(
        {
            "id": {"type": "string"},
            "status": {
                "enum": ["queued", "delivered", "refused", "dead"],
                "description": (
                    "`refused`: the events API refused it for good; `dead`: delivery was given up"
                ),
            },
            "attempts": {"type": "integer", "minimum": 0},
            "acceptedAt": {"type": "string", "format": "date-time"},
            "finishedAt": {"type": ["string", "null"], "format": "date-time"},
            "eventId": {
                "type": ["string", "null"],
                "description": "The id of the stored event, once it is delivered",
            },
            "problem": {
                "description": "Why it is refused or dead",
                "anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/Problem"}],
            },
        },
        {
            "id": EVENT_ID,
            "status": "delivered",
            "attempts": 1,
            "acceptedAt": "2026-01-02T03:04:05.678Z",
            "finishedAt": "2026-01-02T03:04:06.012Z",
            "eventId": EVENT_ID,
            "problem": None,
        },
    ),
    "Alive": _result({"status": {"const": "ok"}}, {"status": "ok"}),
    "Ready": _result(
        {
            "status": {"enum": ["ok", "degraded"]},
            "breakers": {
                "type": "object",
                "additionalProperties": {"enum": [state.value for state in State]},
            },
        },
        {"status": "ok", "breakers": {"addEvent": "closed"}},
    ),
    "LogLevel": _result(
        {"level": {"enum": ["debug", "info", "warning", "error"]}}, {"level": "info"}
    ),
}


def _header(
    description: str, example: Any, *, required: bool = False, kind: str = "string"
) -> Json:
    return {
        "description": description,
        "required": required,
        "schema": {"type": kind},
        "example": example,
    }


HEADERS: Json = {
    "X-Request-ID": _header(
        "The request's id: the client's if it sent a valid one", EVENT_ID, required=True
    ),
    "Retry-After": _header("Seconds to wait", 5, required=True, kind="integer"),
    "Location": _header(
        "Where to ask for the event's state", f"/api/addEvent/{EVENT_ID}", required=True
    ),
    "Preference-Applied": _header(
        "The preference that was applied", "respond-async", required=True
    ),
    "RateLimit-Policy": _header(
        "Requests allowed (q) per window (w seconds)", '"default";q=100;w=1'
    ),
    "RateLimit": _header(
        "Requests left (r) until the window ends (in t seconds)", '"default";r=57;t=1'
    ),
    "Age": _header("Seconds since the data came from the events API", 2, kind="integer"),
    "Cache-Status": _header("How the cache handled the request", "event-service; hit; ttl=8"),
    "WWW-Authenticate": _header("How to authenticate", "Bearer", required=True),
    "Allow": _header("The methods that the path supports", "GET, HEAD", required=True),
}


def _from_header(name: str, description: str, example: str, schema: Json | None = None) -> Json:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": schema or {"type": "string"},
        "example": example,
    }


def api_key(header: str) -> Json:
    return _from_header(header, "Identifies the client, for example to limit its rate", "a-key")


ID_SCHEMA: Json = {
    "type": "string",
    "pattern": ID_PATTERN.replace(r"\Z", "$"),
    "description": ID_WORDS,
}
PARAMETERS: Json = {
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The user's id",
        "schema": ID_SCHEMA,
        "example": "1",
    },
    "delivery": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The delivery's id: the last part of `Location`",
        "schema": ID_SCHEMA,
        "example": EVENT_ID,
    },
    "Prefer": _from_header(
        "Prefer",
        "`respond-async`: answer 202 once the event is on disk, and deliver it later. With "
        "`wait=N`, wait up to N seconds for the delivery first (RFC 7240)",
        "respond-async, wait=2",
    ),
    "slug": {
        "name": "slug",
        "in": "path",
        "required": True,
        "description": "The last part of a problem's type",
        "schema": {"type": "string", "enum": list(PROBLEMS)},
        "example": "circuit-open",
    },
    "partial": {
        "name": "partial",
        "in": "query",
        "description": "Return the events that could be read, and the errors of the others",
        "schema": {"type": "boolean", "default": False},
        "example": True,
    },
    "Idempotency-Key": _from_header(
        "Idempotency-Key",
        "The same key for every attempt at one write, and a new one for each other write",
        EVENT_ID,
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
    ),
    "X-Request-ID": _from_header(
        "X-Request-ID",
        "1 to 128 letters, digits, '.', '_' or '-'; anything else is replaced by a new id",
        EVENT_ID,
    ),
    "traceparent": _from_header(
        "traceparent",
        "W3C Trace Context: continued and passed on if it is valid",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
}

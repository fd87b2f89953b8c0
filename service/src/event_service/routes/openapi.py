"""The OpenAPI document, built from the models and the error table that the code itself uses."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from event_service.models import Event, NewEvent, User
from event_service.problems import Problem
from event_service.routes.openapi_parts import (
    EVENT,
    EVENT_ID,
    HEADERS,
    NEW_EVENT,
    PARAMETERS,
    PROBLEM,
    PROBLEMS,
    RESULTS,
    USER,
    Json,
    api_key,
)
from event_service.routes.problem_guide import GUIDE

DESCRIPTION = """Users and their events, from an events API that is slow and sometimes down.

Every error is a problem document (RFC 9457); its `type` links to a page that says what it means
and what to do. Every response carries `X-Request-ID`: quote it when you report a problem."""
# Problems that any request to the API may get.
_ANYWHERE = ("invalid-request", "rate-limited", "internal-error", "overloaded")
_FROM_UPSTREAM = ("upstream-error", "upstream-unavailable", "circuit-open", "upstream-timeout")
_LIMITED = ("X-Request-ID", "RateLimit", "RateLimit-Policy")
_READ = (*_LIMITED, "Age", "Cache-Status")
_BODY_REFUSED = (
    "payload-too-large",
    "unsupported-media-type",
    "validation-failed",
    "request-timeout",
)
_EVENT_REFUSED = (
    "idempotency-key-reused",
    "user-not-found",
    "upstream-rejected",
    "upstream-conflict",
)
_STATUS_HEADERS = {401: ["WWW-Authenticate"], 405: ["Allow"], 429: ["Retry-After"]}


def openapi(
    *, release: str, operations: bool, guarded: bool, api_key_header: str, outbox: bool
) -> Json:
    """The document of one instance.

    `operations`: whether it has operators' endpoints; `guarded`: whether they need the token.
    `outbox`: whether it accepts events for later delivery.
    """
    everywhere = [api_key(api_key_header)] if api_key_header else []
    paths = _api_paths(everywhere)
    if outbox:
        _add_deliveries(paths, everywhere)
    paths |= _health_paths() | _document_paths()
    if operations:
        paths |= _operator_paths(guarded=guarded)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Event Service",
            "version": release,
            "summary": "A fast, dependable service in front of a slow, fragile events API",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "the server that this document came from"}],
        "tags": [
            {"name": "users", "description": "Users and the ids of their events"},
            {"name": "events", "description": "Read all events or a user's, and add events"},
            {"name": "operations", "description": "For operators and their tools"},
            {"name": "documentation", "description": "This document, and pages to read"},
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "examples": {
                slug: {"summary": problem.row.title, "value": _example(problem, path)}
                for slug, (problem, path) in PROBLEMS.items()
            },
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "EVENT_SERVICE_OPS_TOKEN",
                }
            },
        },
    }
    return document


def _api_paths(everywhere: Sequence[Json]) -> Json:
    parameters = [_parameter("X-Request-ID"), _parameter("traceparent"), *everywhere]
    return {
        "/api/getUsers": {
            "get": _operation(
                "getUsers",
                "users",
                "All users",
                _json({"type": "array", "items": _ref("User")}, [USER], _READ),
                (*_ANYWHERE, *_FROM_UPSTREAM),
                parameters,
            )
        },
        "/api/getEvents": {
            "get": _operation(
                "getEvents",
                "events",
                "All events",
                _json({"type": "array", "items": _ref("Event")}, [EVENT], _READ),
                (*_ANYWHERE, *_FROM_UPSTREAM),
                parameters,
            )
        },
        "/api/getEventsByUserId/{id}": {
            "get": _operation(
                "getEventsByUserId",
                "events",
                "The events of one user, in the order of the user's list",
                _json(
                    {"oneOf": [{"type": "array", "items": _ref("Event")}, _ref("PartialEvents")]},
                    [EVENT],
                    _READ,
                ),
                (*_ANYWHERE, "user-not-found", *_FROM_UPSTREAM),
                [_parameter("id"), _parameter("partial"), *parameters],
                "All events are fetched concurrently. If one fails, the request fails; with "
                "`partial=true` it returns the others.",
            )
        },
        "/api/addEvent": {
            "post": {
                **_operation(
                    "addEvent",
                    "events",
                    "Add an event",
                    _json(_ref("Added"), {"success": True, "id": EVENT_ID}, _LIMITED),
                    (*_ANYWHERE, *_BODY_REFUSED, *_EVENT_REFUSED, *_FROM_UPSTREAM),
                    [_parameter("Idempotency-Key"), *parameters],
                    "A retry with the same `Idempotency-Key` adds nothing twice. After 3 failures "
                    "within 30 s the circuit opens, and requests are refused at once for 10 s.",
                ),
                "requestBody": {
                    "required": True,
                    "description": "At most 64 KiB. Unknown and duplicate fields are refused.",
                    "content": {
                        "application/json": {"schema": _ref("NewEvent"), "example": NEW_EVENT}
                    },
                },
            }
        },
    }


def _add_deliveries(paths: Json, everywhere: Sequence[Json]) -> None:
    add_event = paths["/api/addEvent"]["post"]
    add_event["parameters"].insert(0, _parameter("Prefer"))
    add_event["responses"]["202"] = {
        **_json(
            _ref("Accepted"),
            {"id": EVENT_ID, "status": "queued"},
            (*_LIMITED, "Location", "Preference-Applied", "Retry-After"),
        ),
        "description": "On disk; delivered as soon as the events API accepts it",
    }
    status = PROBLEMS["outbox-unavailable"][0].row.status
    slugs = add_event["responses"][str(status)]["content"]["application/problem+json"]["examples"]
    add_event["responses"][str(status)] = _refusal(status, [*slugs, "outbox-unavailable"])
    paths["/api/addEvent/{id}"] = {
        "get": _operation(
            "getDelivery",
            "events",
            "The state of an event that was accepted for later delivery",
            _json(
                _ref("Delivery"),
                RESULTS["Delivery"]["example"],
                _LIMITED,
            ),
            (*_ANYWHERE, "delivery-not-found", "outbox-unavailable", "upstream-timeout"),
            [
                _parameter("delivery"),
                _parameter("X-Request-ID"),
                _parameter("traceparent"),
                *everywhere,
            ],
        )
    }


def _health_paths() -> Json:
    breakers = {"addEvent": "closed", "getUsers": "open"}
    return {
        "/livez": {
            "get": _operation(
                "livez",
                "operations",
                "Whether the process is alive",
                _json(_ref("Alive"), {"status": "ok"}),
            )
        },
        "/readyz": {
            "get": _operation(
                "readyz",
                "operations",
                "Whether it can serve: `degraded` while a circuit is not closed",
                _json(_ref("Ready"), {"status": "degraded", "breakers": breakers}),
            )
        },
    }


def _operator_paths(*, guarded: bool) -> Json:
    refusals = ("unauthorized",) if guarded else ()
    security: Json = {"security": [{"operator": []}]} if guarded else {}
    level = _json(_ref("LogLevel"), {"level": "info"})
    change = _operation(
        "setLogLevel",
        "operations",
        "Set the minimum log level of all workers",
        level,
        ("invalid-request", *_BODY_REFUSED, *refusals),
    )
    change["requestBody"] = {"required": True, "content": level["content"]}
    return {
        "/metrics": {
            "get": security
            | _operation(
                "metrics",
                "operations",
                "Metrics for Prometheus",
                _text("text/plain", "http_requests_in_flight 1.0", "application/openmetrics-text"),
                refusals,
            )
        },
        "/ops/log-level": {
            "get": security
            | _operation("getLogLevel", "operations", "The minimum log level", level, refusals),
            "put": security | change,
        },
        "/dashboard": {
            "get": security
            | _operation(
                "dashboard",
                "operations",
                "The live dashboard",
                _page(),
                page_refusal=guarded,
            )
        },
    }


def _document_paths() -> Json:
    a_problem = {"type": "/problems/not-found", "title": "Not found", "status": 404, "meaning": "…"}
    return {
        "/": {
            "get": _operation(
                "index",
                "documentation",
                "Index, as a page for browsers and JSON for programs",
                _page_or_json(
                    {"type": "object"}, {"name": "Event Service", "links": {"docs": "/docs"}}
                ),
            )
        },
        "/problems": {
            "get": _operation(
                "problems",
                "documentation",
                "All problems, as a page for browsers and JSON for programs",
                _page_or_json({"type": "array", "items": {"type": "object"}}, [a_problem]),
            )
        },
        "/openapi.json": {
            "get": _operation(
                "openapi",
                "documentation",
                "This document",
                _json({"type": "object"}, {"openapi": "3.1.0"}),
            )
        },
        "/docs": {"get": _operation("docs", "documentation", "This document as a page", _page())},
        "/problems/{slug}": {
            "get": _operation(
                "problem",
                "documentation",
                "What a problem means and what to do about it",
                _page(),
                ("not-found",),
                [_parameter("slug")],
            )
        },
    }


def _operation(
    name: str,
    tag: str,
    summary: str,
    success: Json,
    problems: Iterable[str] = (),
    parameters: Sequence[Json] = (),
    description: str = "",
    *,
    page_refusal: bool = False,
) -> Json:
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for slug in problems:
        by_status[PROBLEMS[slug][0].row.status].append(slug)
    responses = {"200": success}
    if page_refusal:
        responses["401"] = {**_page(), "description": "A page to sign in"}
    for status, slugs in sorted(by_status.items()):
        responses[str(status)] = _refusal(status, slugs)
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **({"description": description} if description else {}),
        **({"parameters": list(parameters)} if parameters else {}),
        "responses": responses,
    }


def _refusal(status: int, slugs: Sequence[str]) -> Json:
    headers = ["X-Request-ID", *_STATUS_HEADERS.get(status, [])]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append("Retry-After")
    return {
        "description": " Or: ".join(GUIDE[slug].meaning for slug in slugs),
        "headers": _headers(headers),
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [
                        _ref("Problem"),
                        {"properties": {"type": {"enum": [f"/problems/{s}" for s in slugs]}}},
                    ]
                },
                "examples": {slug: {"$ref": f"#/components/examples/{slug}"} for slug in slugs},
            }
        },
    }


def _json(schema: Json, example: Any, headers: Iterable[str] = ("X-Request-ID",)) -> Json:
    return {
        "description": "Done",
        "headers": _headers(headers),
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _text(media_type: str, example: str, *others: str) -> Json:
    content = {"schema": {"type": "string"}, "example": example}
    return {
        "description": "Done",
        "headers": _headers(["X-Request-ID"]),
        "content": dict.fromkeys([media_type, *others], content),
    }


def _page() -> Json:
    return _text("text/html", "<!doctype html>…")


def _page_or_json(schema: Json, example: Any) -> Json:
    reply = _json(schema, example)
    return reply | {"content": reply["content"] | _page()["content"]}


def _headers(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _example(problem: Problem, path: str) -> Json:
    decoded: Json = msgspec.json.decode(problem.body(instance=path, request_id=EVENT_ID))
    return decoded


def _schemas() -> Json:
    _, models = msgspec.json.schema_components(
        [User, Event, NewEvent], ref_template="#/components/schemas/{name}"
    )
    models["User"]["example"] = USER
    models["Event"]["example"] = EVENT
    models["NewEvent"]["example"] = NEW_EVENT
    # JSON Schema knows only `$` for the end of a string, not `\Z`.
    encoded = msgspec.json.encode({**models, **RESULTS, "Problem": PROBLEM})
    schemas: Json = msgspec.json.decode(encoded.replace(rb"\\Z", b"$"))
    return schemas

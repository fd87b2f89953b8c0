"""A delivery as JSON, for clients and for operators."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from event_service.outbox.records import Delivery, State


def status_of(delivery: Delivery) -> dict[str, Any]:
    """The delivery as its client sees it."""
    failed = delivery.state in {State.REFUSED, State.DEAD} and delivery.last_error is not None
    return {
        "id": delivery.id,
        "status": delivery.state,
        "attempts": delivery.attempts,
        "acceptedAt": _time(delivery.accepted_at),
        "finishedAt": None if delivery.finished_at is None else _time(delivery.finished_at),
        "eventId": delivery.event_id,
        "problem": msgspec.Raw(delivery.last_error or b"null") if failed else None,
    }


def details_of(delivery: Delivery) -> dict[str, Any]:
    """All details, for operators."""
    return {
        **status_of(delivery),
        "userId": delivery.user_id,
        "event": msgspec.Raw(delivery.body),
        "idempotencyKey": delivery.upstream_key,
        "failures": delivery.failures,
        "lastProblem": msgspec.Raw(delivery.last_error or b"null"),
        "requestId": delivery.request_id,
        "traceparent": delivery.traceparent,
    }


def summary_of(delivery: Delivery) -> dict[str, Any]:
    """One entry of a list, for operators."""
    return {
        "number": delivery.seq,
        "id": delivery.id,
        "status": delivery.state,
        "attempts": delivery.attempts,
        "acceptedAt": _time(delivery.accepted_at),
        "userId": delivery.user_id,
        "problem": problem_of(delivery),
    }


def problem_of(delivery: Delivery) -> str:
    """The slug of the problem of the last attempt; "" if there was none."""
    problem = msgspec.json.decode(delivery.last_error or b"{}")
    return str(problem.get("type", "")).removeprefix("/problems/")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"

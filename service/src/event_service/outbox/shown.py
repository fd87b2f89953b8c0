"""What may be told of a delivery: to whoever may ask for it, and to operators."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from event_service.outbox.records import Delivery, State


def status_of(delivery: Delivery) -> dict[str, Any]:
    """What whoever may ask for a delivery is told of it."""
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
    """All that is known of it, for operators."""
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
    """A line of a list, for operators."""
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
    """The slug of the problem that its last attempt met; "" if there was none."""
    problem = msgspec.json.decode(delivery.last_error or b"{}")
    return str(problem.get("type", "")).removeprefix("/problems/")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"

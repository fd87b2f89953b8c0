"""What can go wrong with a request, by meaning. `problems.py` maps each to an HTTP status."""

from typing import ClassVar

# A body may have thousands of faults; `errors` lists them all, the text only a few.
FAULTS_IN_TEXT = 3


class EventServiceError(Exception):
    """An error that a client may be told about; `str(error)` is safe to show to anyone."""


class InvalidRequest(EventServiceError):
    """The request's id, query, header or JSON is malformed."""


class ValidationFailed(EventServiceError):
    """The body is JSON but violates its schema; `errors` are (path, message) pairs, never none."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        shown = [f"{path} {text}" for path, text in errors[:FAULTS_IN_TEXT]]
        if len(errors) > FAULTS_IN_TEXT:
            shown.append(f"and {len(errors) - FAULTS_IN_TEXT} more")
        super().__init__("; ".join(shown))
        self.errors = errors


class ClientGone(Exception):
    """The client left before the reply; nobody is there to receive it."""


class UnsupportedMediaType(EventServiceError):
    pass


class PayloadTooLarge(EventServiceError):
    pass


class RequestTimeout(EventServiceError):
    """The client took too long to send its request."""


class Unauthorized(EventServiceError):
    """Only operators may do this, and the request has no valid credentials."""


class Forbidden(EventServiceError):
    """A request of this form is not allowed from anybody."""


class UserNotFound(EventServiceError):
    """The upstream does not know the user.

    `operation` and `reason` are for the operator's log. `usual` is False if the upstream's reply
    may have meant something else.
    """

    outcome = "not_found"

    def __init__(
        self, user_id: str, *, operation: str = "", reason: str = "", usual: bool = True
    ) -> None:
        super().__init__(f"There is no user with the id {user_id!r}.")
        self.user_id = user_id
        self.operation = operation
        self.reason = reason
        self.usual = usual


class DeliveryNotFound(EventServiceError):
    """There is no such delivery, or it belongs to another client."""

    def __init__(self) -> None:
        super().__init__("There is no delivery with this id.")


class IdempotencyKeyReused(EventServiceError):
    """The same Idempotency-Key was used before with another body."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another body.")


class OutboxUnavailable(EventServiceError):
    """The outbox cannot be written or read at the moment."""

    retry_after = 5.0  # seconds

    def __init__(self) -> None:
        super().__init__("The outbox does not work at the moment; no promise was made.")


class Overloaded(EventServiceError):
    """Too many requests are in flight, or a local resource is used up. `retry_after` is in seconds.

    `reason` is for the operator's log.
    """

    outcome = "overloaded"

    def __init__(self, detail: str, *, retry_after: float = 1.0, reason: str = "") -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.reason = reason


class RateLimited(EventServiceError):
    """The client is over its rate. `retry_after` is in seconds."""

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class DeadlineExceeded(EventServiceError):
    """The request's deadline passed before there was an answer.

    `operation` and `reason`, for the operator's log, say what was pending, if known.
    """

    outcome = "cancelled"

    def __init__(self, detail: str, *, operation: str = "", reason: str = "") -> None:
        super().__init__(detail)
        self.operation = operation
        self.reason = reason


class UpstreamError(EventServiceError):
    """A call to the upstream failed.

    `reason` is for the operator's log; neither it nor the text contains upstream data. `outcome`
    names the kind of error in metrics.
    """

    outcome: ClassVar[str]

    def __init__(self, operation: str, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.operation = operation
        self.reason = reason


class UpstreamRefused(UpstreamError):
    """The upstream works but refused this call: another 4xx, a redirect, `success:false`."""

    outcome = "refused"


class UpstreamNotFound(UpstreamRefused):
    """The upstream has nothing under this id. `usual`: it answered with the usual status."""

    outcome = "not_found"

    def __init__(self, operation: str, detail: str, *, reason: str, usual: bool = True) -> None:
        super().__init__(operation, detail, reason=reason)
        self.usual = usual


class UpstreamConflict(UpstreamRefused):
    """The upstream refused a new event because of a conflict: 409."""


class UpstreamRejected(UpstreamRefused):
    """The upstream refused a new event for good, with `upstream_status`."""

    def __init__(self, operation: str, detail: str, *, reason: str, upstream_status: int) -> None:
        super().__init__(operation, detail, reason=reason)
        self.upstream_status = upstream_status


class UpstreamMisshapen(UpstreamError):
    """JSON of the wrong shape: a fault of this data, not of the upstream.

    A breaker counts it neither way: one bad record must not cut off everybody.
    """

    outcome = "misshapen"


class UpstreamFault(UpstreamError):
    """The upstream itself fails; breakers count these.

    `passing`: whether the same call may succeed a moment later.
    """

    passing = True


class UpstreamFailed(UpstreamFault):
    """A 5xx, or no connection."""

    outcome = "failed"


class UpstreamUnreachable(UpstreamFailed):
    """No connection could be made, so the call was not sent."""


class UpstreamBroken(UpstreamFailed):
    """The connection broke after the call was sent; the upstream may have carried it out."""


class UpstreamNonsense(UpstreamFault):
    """The reply is unintelligible or too large."""

    outcome = "nonsense"
    passing = False


class UpstreamUnreadable(UpstreamNonsense):
    """A 2xx whose body is too large or in an unknown encoding."""


class UpstreamUnavailable(UpstreamFault):
    """The upstream said 429 or 503. `retry_after`: the seconds it asked for, or None."""

    outcome = "unavailable"

    def __init__(
        self,
        operation: str,
        detail: str,
        *,
        reason: str,
        retry_after: float | None,
        too_many: bool = False,
    ) -> None:
        super().__init__(operation, detail, reason=reason)
        self.retry_after = retry_after
        self.too_many = too_many


class UpstreamTimeout(UpstreamFault):
    """No complete reply within the time an attempt may take."""

    outcome = "timeout"

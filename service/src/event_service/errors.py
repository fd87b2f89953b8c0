"""What can go wrong with a request, by meaning. `problems.py` gives each its HTTP status."""

from typing import ClassVar

# A client may send thousands of faults; `errors` has them all, the text a few.
FAULTS_IN_TEXT = 3


class EventServiceError(Exception):
    """An error that a client may be told about; `str(error)` is safe to show to anyone."""


class InvalidRequest(EventServiceError):
    """The id, the query, a header or the JSON of a request is malformed."""


class ValidationFailed(EventServiceError):
    """The body is JSON, but breaks its schema; `errors` are (path, message) pairs, never none."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        shown = [f"{path} {text}" for path, text in errors[:FAULTS_IN_TEXT]]
        if len(errors) > FAULTS_IN_TEXT:
            shown.append(f"and {len(errors) - FAULTS_IN_TEXT} more")
        super().__init__("; ".join(shown))
        self.errors = errors


class ClientGone(Exception):
    """The client left before there was a reply; nobody is there to be told."""


class UnsupportedMediaType(EventServiceError):
    pass


class PayloadTooLarge(EventServiceError):
    pass


class RequestTimeout(EventServiceError):
    """The client took longer over its request than a request may take."""


class Unauthorized(EventServiceError):
    """Only operators may have this, and the request does not show that it comes from one."""


class Forbidden(EventServiceError):
    """The request is not allowed in this form, whoever sends it."""


class UserNotFound(EventServiceError):
    """The upstream does not know the user.

    `operation` and `reason` are for the operator's log, as those of an UpstreamError are;
    `usual` is False for a reply that may well mean something else.
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
    """There is no such delivery, or it is another client's."""

    def __init__(self) -> None:
        super().__init__("There is no delivery with this id.")


class IdempotencyKeyReused(EventServiceError):
    """The same Idempotency-Key came with another body before."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another body.")


class OutboxUnavailable(EventServiceError):
    """The outbox cannot store or read at the moment."""

    retry_after = 5.0  # seconds

    def __init__(self) -> None:
        super().__init__("The outbox does not work at the moment; no promise was made.")


class Overloaded(EventServiceError):
    """Too much is in flight already, or something of ours is used up. `retry_after` in seconds.

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

    `operation` and `reason`, for the operator's log, say what was pending, where that is known.
    """

    outcome = "cancelled"

    def __init__(self, detail: str, *, operation: str = "", reason: str = "") -> None:
        super().__init__(detail)
        self.operation = operation
        self.reason = reason


class UpstreamError(EventServiceError):
    """A call to the upstream did not bring what was asked for.

    `reason` is for the operator's log; neither it nor the text holds what the upstream sent.
    `outcome` names the kind of error in metrics.
    """

    outcome: ClassVar[str]

    def __init__(self, operation: str, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.operation = operation
        self.reason = reason


class UpstreamRefused(UpstreamError):
    """The upstream works and refused this one call: another 4xx, a redirect, `success:false`."""

    outcome = "refused"


class UpstreamNotFound(UpstreamRefused):
    """The upstream knows nothing under this id. `usual`: it said so with the usual status."""

    outcome = "not_found"

    def __init__(self, operation: str, detail: str, *, reason: str, usual: bool = True) -> None:
        super().__init__(operation, detail, reason=reason)
        self.usual = usual


class UpstreamConflict(UpstreamRefused):
    """The upstream refused a new event because of what it has already: 409."""


class UpstreamRejected(UpstreamRefused):
    """The upstream refused a new event for good, with `upstream_status`."""

    def __init__(self, operation: str, detail: str, *, reason: str, upstream_status: int) -> None:
        super().__init__(operation, detail, reason=reason)
        self.upstream_status = upstream_status


class UpstreamMisshapen(UpstreamError):
    """JSON of another shape than it should have: a fault of these data, not of the upstream.

    A breaker counts it as neither: one bad record must not cut off everybody.
    """

    outcome = "misshapen"


class UpstreamFault(UpstreamError):
    """The upstream itself is in trouble; these are the failures that a breaker counts.

    `passing`: whether the same call may well succeed a moment later.
    """

    passing = True


class UpstreamFailed(UpstreamFault):
    """A 5xx, or no connection."""

    outcome = "failed"


class UpstreamUnreachable(UpstreamFailed):
    """There was no connection, so the call was not sent."""


class UpstreamBroken(UpstreamFailed):
    """The connection broke after the call was sent; it may have been carried out."""


class UpstreamNonsense(UpstreamFault):
    """A reply that cannot be understood or is too large."""

    outcome = "nonsense"
    passing = False


class UpstreamUnreadable(UpstreamNonsense):
    """A success whose body is too large or encoded in a way that we do not know."""


class UpstreamUnavailable(UpstreamFault):
    """The upstream said 429 or 503. `retry_after`: the seconds it asked for, None if it did not.

    `too_many`: that we call it too often (429), not that it is in trouble.
    """

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

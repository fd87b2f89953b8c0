"""What the upstream's replies mean. Knows statuses and bodies, but no HTTP client."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec

from event_service.errors import (
    UpstreamConflict,
    UpstreamFailed,
    UpstreamMisshapen,
    UpstreamNonsense,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from event_service.models import Event, User

T = TypeVar("T")
W = TypeVar("W")

# Seconds. A Retry-After of more than a day is cut to this.
LONGEST_RETRY_AFTER = 86_400.0
NONSENSE = "The upstream sent a reply that makes no sense."
LONGEST_LOCATION = 200
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BY_ID = {"getUserById", "getEventsByUserId", "getEventById"}
_BY_USER_ID = {"getUserById", "getEventsByUserId"}
_NO_SUCH_USER = {
    HTTPStatus.NOT_FOUND,
    HTTPStatus.GONE,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
_REJECTED = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.GONE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}


class Target(NamedTuple):
    """The operation, and for the log its method and its URL with `{id}` for the id."""

    operation: str
    method: str
    url: str

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


def refuse_by_status(target: Target, status: int, header: Callable[[str], str]) -> None:
    """Raise the error for a status that is not a success.

    `header` returns "" for a header that the reply does not have.
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    operation, reason = target.operation, f"status {status}"
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        raise UpstreamUnavailable(
            operation,
            "The upstream takes no calls at the moment.",
            reason=reason,
            retry_after=seconds(header("retry-after")),
            too_many=status == HTTPStatus.TOO_MANY_REQUESTS,
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UpstreamFailed(operation, "The upstream failed.", reason=reason)
    _refuse_for_good(target, status, header)


def _refuse_for_good(target: Target, status: int, header: Callable[[str], str]) -> NoReturn:
    operation, reason = target.operation, f"status {status} to {target}"
    if status < HTTPStatus.BAD_REQUEST:
        reason += f", Location: {_location(header('location'))}; redirects are not followed"
    elif status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        reason += ": likely the credentials in UPSTREAM_HEADERS are missing or wrong"
    elif operation == "addEvent":
        _refuse_event(target, status, reason)
    elif status == HTTPStatus.NOT_FOUND or (operation in _BY_USER_ID and status in _NO_SUCH_USER):
        if operation not in _BY_ID:
            reason += ": likely its path in UPSTREAM_PATHS is wrong"
        raise not_found(operation, reason, usual=status == HTTPStatus.NOT_FOUND)
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        reason += ": likely its path in UPSTREAM_PATHS is wrong"
    raise UpstreamRefused(operation, "The upstream refused the call.", reason=reason)


def _refuse_event(target: Target, status: int, reason: str) -> None:
    operation = target.operation
    if status == HTTPStatus.NOT_FOUND:
        raise not_found(operation, reason)
    if status == HTTPStatus.CONFLICT:
        raise UpstreamConflict(
            operation,
            "The upstream says that the event conflicts with what it has; do not repeat the call.",
            reason=reason,
        )
    if status in _REJECTED:
        raise UpstreamRejected(
            operation,
            "The upstream refused the event for good; do not repeat the call.",
            reason=reason,
            upstream_status=status,
        )


class _AnyUser(msgspec.Struct):
    id: str | int | float
    name: str | None = None
    events: list[str | int | float] | None = None

    def user(self) -> User:
        return User(_id(self.id), self.name or "", [_id(each) for each in self.events or ()])


class _AnyEvent(msgspec.Struct):
    id: str | int | float
    userId: str | int | float | None = None  # noqa: N815  the wire's name
    title: str | None = None
    description: str | None = None

    def event(self) -> Event:
        user_id = "" if self.userId is None else _id(self.userId)
        return Event(_id(self.id), user_id, self.title or "", self.description or "")


class Shape(Generic[T, W]):
    """Decodes a body. A body of exactly our own shape is decoded fastest; variations are accepted.

    `null` counts as absent and ids may be numbers; only `id` is required.
    """

    def __init__(self, ours: type[T] | Any, theirs: type[W] | Any, taken: Callable[[W], T]) -> None:
        self._ours: msgspec.json.Decoder[T] = msgspec.json.Decoder(ours)
        self._theirs: msgspec.json.Decoder[W] = msgspec.json.Decoder(theirs)
        self._taken = taken

    def decode(self, operation: str, body: bytes) -> T:
        """Raise UpstreamNonsense if it is not JSON, UpstreamMisshapen if its shape is wrong."""
        body = body.removeprefix(_BYTE_ORDER_MARK)
        try:
            try:
                return self._ours.decode(body)
            except msgspec.ValidationError:
                return self._taken(self._theirs.decode(body))
        except msgspec.ValidationError as exc:
            reason = _said_with_path(exc)
            if not is_json(body):
                raise nonsense(operation, "the body is not JSON") from exc
            raise misshapen(operation, reason) from exc
        except RecursionError as exc:
            raise misshapen(operation, "$: nested too deeply") from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise nonsense(operation, "the body is not JSON") from exc


def _users(them: list[_AnyUser] | None) -> list[User]:
    return [each.user() for each in them or ()]


def _events(them: list[_AnyEvent] | None) -> list[Event]:
    return [each.event() for each in them or ()]


def _user(it: _AnyUser | None) -> User | None:
    return None if it is None else it.user()


def _event(it: _AnyEvent | None) -> Event | None:
    return None if it is None else it.event()


USERS: Shape[list[User], Any] = Shape(list[User], list[_AnyUser] | None, _users)
EVENTS: Shape[list[Event], Any] = Shape(list[Event], list[_AnyEvent] | None, _events)
USER: Shape[User | None, Any] = Shape(User | None, _AnyUser | None, _user)
EVENT: Shape[Event | None, Any] = Shape(Event | None, _AnyEvent | None, _event)


class _Added(msgspec.Struct):
    success: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


_added = msgspec.json.Decoder(_Added)
_text = msgspec.json.Decoder(str)


def stored_id(body: bytes, ours: str) -> str:
    """The id of a new event from the body of a 2xx: the upstream's id, unchanged, or else ours.

    Raises UpstreamRefused for a JSON object with `"success": false`, and nothing else.
    """
    try:
        added = _added.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ours
    if bytes(added.success) == b"false":
        raise UpstreamRefused("addEvent", "The upstream refused the event.", reason="success:false")
    theirs = bytes(added.id)
    if theirs[:1] == b'"':
        try:
            return _text.decode(theirs)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ours
    return theirs.decode() if theirs[:1] in b"-0123456789" and theirs else ours


def nonsense(operation: str, reason: str) -> UpstreamNonsense:
    return UpstreamNonsense(operation, NONSENSE, reason=reason)


def unreadable(operation: str, reason: str) -> UpstreamUnreadable:
    return UpstreamUnreadable(operation, NONSENSE, reason=reason)


def misshapen(operation: str, reason: str) -> UpstreamMisshapen:
    return UpstreamMisshapen(
        operation, "The upstream sent data of another shape than it should.", reason=reason
    )


def not_found(operation: str, reason: str, *, usual: bool = True) -> UpstreamNotFound:
    return UpstreamNotFound(
        operation,
        "The upstream does not know what it was asked for.",
        reason=reason,
        usual=usual,
    )


def is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    except RecursionError:
        pass
    return True


def seconds(
    retry_after: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> float | None:
    """Seconds from a Retry-After header: a number of seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isdecimal():
        return min(float(retry_after), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    # Dates in HTTP are in GMT; the oldest format does not say so.
    left = (date.replace(tzinfo=date.tzinfo or UTC) - now()).total_seconds()
    return min(max(left, 0.0), LONGEST_RETRY_AFTER)


def _id(value: str | float) -> str:
    """An id as text; 5.0, which some languages write for 5, is "5"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _said_with_path(error: msgspec.ValidationError) -> str:
    """Such as `$.events[3].title: expected str, got object`; contains no upstream data."""
    text, _, path = str(error).replace("`", "").partition(" - at ")
    text = text.replace(" | null", "").replace("int | float | str", "str or number")
    return f"{path or '$'}: {text[:1].lower()}{text[1:]}"


def _location(value: str) -> str:
    """The target of a redirect, without credentials and query."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return "?"
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
    where = f"{host}{parts.path}"[:LONGEST_LOCATION]
    return "".join(each if each.isprintable() else "?" for each in where) or "none"

"""Users and events. msgspec validates while it decodes; there is no second model layer."""

import re
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from event_service.errors import InvalidRequest

# The characters of a path segment (RFC 3986 `pchar` without `%`), except the dot segments.
ID_PATTERN = r"^(?!\.{1,2}\Z)[A-Za-z0-9._~!$&'()*+,;=:@-]{1,128}\Z"
ID_WORDS = "a string of 1 to 128 letters, digits or -._~!$&'()*+,;=:@, not '.' or '..'"
_matches_id = re.compile(ID_PATTERN).match

# Descriptions complete the sentence "must be …" in validation errors.
Id = Annotated[
    str,
    Meta(
        pattern=ID_PATTERN,
        description=ID_WORDS,
    ),
]
# Any Unicode text, control characters included: whoever displays it escapes it. NUL is excluded
# because databases refuse it.
TEXT_PATTERN = r"^[^\x00]*\Z"
Title = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=TEXT_PATTERN,
        description="a string of 1 to 200 characters without NUL",
    ),
]
Description = Annotated[
    str,
    Meta(
        max_length=2_000,
        pattern=TEXT_PATTERN,
        description="a string of up to 2000 characters without NUL",
    ),
]


def is_id(text: str) -> bool:
    """Whether the text is a valid id for a path."""
    return _matches_id(text) is not None


def parse_id(text: str) -> str:
    """Returns the id; raises InvalidRequest if it is not valid."""
    if _matches_id(text) is None:
        raise InvalidRequest(
            "An id is 1 to 128 letters, digits or -._~!$&'()*+,;=:@, and not '.' or '..'."
        )
    return text


class User(Struct, frozen=True):
    """As the upstream sends it: its event ids are data, to be checked before use in a path."""

    id: str
    name: str
    events: list[str]


class Event(Struct, frozen=True):
    """As the upstream sends it, like User."""

    id: str
    userId: str  # noqa: N815  the wire's name
    title: str
    description: str = ""


class NewEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to add an event."""

    userId: Id  # noqa: N815  the wire's name
    title: Title
    description: Description | None = None


class PartialEvents(NamedTuple):
    """The events that could be read, in the user's order, and the id and error of each other."""

    events: list[Event]
    errors: list[tuple[str, Exception]]

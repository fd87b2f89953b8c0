"""Users and events. Decoding with msgspec validates; there is no second model layer."""

import re
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from event_service.errors import InvalidRequest

# What a path segment may hold unescaped (`pchar` of RFC 3986, 3.3, without `%`), but for the two
# that mean another segment.
ID_PATTERN = r"^(?!\.{1,2}\Z)[A-Za-z0-9._~!$&'()*+,;=:@-]{1,128}\Z"
_matches_id = re.compile(ID_PATTERN).match

# A description says what a value must be: it completes "must be …" for whoever sent another.
Id = Annotated[
    str,
    Meta(
        pattern=ID_PATTERN,
        description="a string of 1 to 128 letters, digits or -._~!$&'()*+,;=:@, not '.' or '..'",
    ),
]
# Any Unicode text, control characters included: to be escaped where it is shown, not here. But no
# NUL, which databases refuse.
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
    """Whether the text may stand in a path as an id."""
    return _matches_id(text) is not None


def parse_id(text: str) -> str:
    """The id itself; raises InvalidRequest for anything that is none."""
    if not is_id(text):
        raise InvalidRequest(
            "An id is 1 to 128 letters, digits or -._~!$&'()*+,;=:@, and not '.' or '..'."
        )
    return text


class User(Struct, frozen=True):
    """As the upstream has it: its ids are data, to be checked before they go into a path."""

    id: str
    name: str
    events: list[str]


class Event(Struct, frozen=True):
    """As the upstream has it, like User."""

    id: str
    userId: str  # noqa: N815  the wire's name
    title: str
    description: str = ""


class NewEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends to add an event."""

    userId: Id  # noqa: N815  the wire's name
    title: Title
    description: Description | None = None


class PartialEvents(NamedTuple):
    """What could be had, in the order of the user's list, and the id and error of each other."""

    events: list[Event]
    errors: list[tuple[str, Exception]]

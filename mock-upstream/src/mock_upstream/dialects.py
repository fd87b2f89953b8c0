"""The habits in which ordinary APIs differ, so that a client can be tried against each."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from mock_upstream.add_event import Answer
from mock_upstream.data import Event, User

# Fifteen digits: a number in JavaScript holds them exactly.
_is_number = re.compile(r"(0|[1-9][0-9]{0,14})\Z").match

DialectName = Literal["plain", "rest", "nulls", "numbers"]


class Dialect(NamedTuple):
    """How one kind of API says what it has; every value is ready to encode.

    `added` gives the status, the body (None: no body) and the headers for an answer of addEvent.
    `rest_paths`: `/users`, `/users/{id}`, `/events` and `/events/{id}` are served too.
    `own_ids`: an event gets an id of the upstream's, whatever its sender proposed.
    """

    user: Callable[[User], Any]
    event: Callable[[Event], Any]
    added: Callable[[Answer], tuple[int, Any, dict[str, str]]]
    rest_paths: bool = False
    own_ids: bool = False


def _unchanged(item: Any) -> Any:
    return item


def _said_plainly(answer: Answer) -> tuple[int, Any, dict[str, str]]:
    return answer.status, answer.outcome, {}


def _created(answer: Answer) -> tuple[int, Any, dict[str, str]]:
    """201 and the event itself, as json-server, Django and Rails answer."""
    if answer.event is None:
        return answer.status, {"message": answer.outcome.message}, {}
    return HTTPStatus.CREATED, answer.event, {"Location": f"/events/{answer.event.id}"}


def _user_with_nulls(user: User) -> dict[str, Any]:
    return {"id": user.id, "name": user.name or None, "events": user.events or None}


def _event_with_nulls(event: Event) -> dict[str, Any]:
    return {"id": event.id, "userId": event.user_id, "title": event.title, "description": None}


def _added_with_nulls(answer: Answer) -> tuple[int, Any, dict[str, str]]:
    """204 without a body: the event is stored and there is nothing more to say."""
    if answer.event is None:
        return answer.status, {"success": False, "message": answer.outcome.message, "id": None}, {}
    return HTTPStatus.NO_CONTENT, None, {}


def _user_with_numbers(user: User) -> dict[str, Any]:
    return {
        "id": _number(user.id),
        "name": user.name,
        "events": [_number(event_id) for event_id in user.events],
    }


def _event_with_numbers(event: Event) -> dict[str, Any]:
    return {
        "id": _number(event.id),
        "userId": _number(event.user_id),
        "title": event.title,
        "description": event.description,
    }


def _added_with_numbers(answer: Answer) -> tuple[int, Any, dict[str, str]]:
    if answer.event is None:
        return answer.status, answer.outcome, {}
    return answer.status, {"success": True, "id": _number(answer.event.id)}, {}


def _number(text: str) -> int | str:
    """The id as a number where it is spelled like one; `7-3` stays as it is."""
    return int(text) if _is_number(text) else text


DIALECTS: dict[DialectName, Dialect] = {
    "plain": Dialect(_unchanged, _unchanged, _said_plainly),
    "rest": Dialect(_unchanged, _unchanged, _created, rest_paths=True),
    "nulls": Dialect(_user_with_nulls, _event_with_nulls, _added_with_nulls),
    "numbers": Dialect(_user_with_numbers, _event_with_numbers, _added_with_numbers, own_ids=True),
}

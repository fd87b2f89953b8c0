"""Describes, for people, how an accepted reply differs from the API as we document it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from event_service.models import is_id

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The values used for fields that are null or missing.
_USER = {"name": '""', "events": "[]"}
_EVENT = {"userId": '""', "title": '""', "description": '""'}
_FIELDS = {
    "getUsers": _USER,
    "getUserById": _USER,
    "getEvents": _EVENT,
    "getEventById": _EVENT,
    "getEventsByUserId": _EVENT,
}
_IDS = ("id", "userId")


def tolerated(operation: str, body: bytes) -> list[str]:
    """Notes such as `description: null, taken as ""`, with a count if there are several records.

    `body` must be one that could be decoded.
    """
    try:
        data = msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found: Counter[str] = Counter()
    records = data if isinstance(data, list) else [data]
    for record in records:
        # Count a note once per record, even if it applies to several of its ids.
        found.update(dict.fromkeys(_of_record(record, _FIELDS[operation]), 1))
    notes = ["a byte order mark, skipped"] if body.startswith(_BYTE_ORDER_MARK) else []
    for note, count in found.items():
        notes.append(note if len(records) == 1 else f"{note} ({count} of {len(records)})")
    return notes


def _of_record(record: Any, fields: dict[str, str]) -> Iterator[str]:
    if not isinstance(record, dict):
        return
    for name, substitute in fields.items():
        if name not in record:
            yield f"{name}: missing, taken as {substitute}"
        elif record[name] is None:
            yield f"{name}: null, taken as {substitute}"
    for name in _IDS:
        yield from _of_id(name, record.get(name))
    for event_id in record.get("events") or ():
        yield from _of_id("events", event_id)
    unknown = sorted(record.keys() - fields.keys() - {"id"})
    if unknown:
        yield f"other fields, ignored: {', '.join(unknown)}"


def _of_id(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, int | float):
        yield f"{name}: numbers, taken as text"
    elif isinstance(value, str) and not is_id(value):
        yield f"{name}: not fit for a path, so it cannot be asked for"

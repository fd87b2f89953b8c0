"""What a reply has that is not as we say it, and is taken all the same: for people to read."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from event_service.models import is_id

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What stands in for a field that is null or missing.
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
    """Such as `description: null, taken as ""`; how often, where there are several records.

    The body is one that was understood; nothing is said of any other.
    """
    try:
        data = msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found: Counter[str] = Counter()
    records = data if isinstance(data, list) else [data]
    for record in records:
        # A record has a note once, however many of its ids it is about.
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

import json

import pytest

from event_service.sources.tolerances import tolerated

ALICE = {"id": "1", "name": "Alice", "events": ["7"]}
TEA = {"id": "7", "userId": "1", "title": "Tea", "description": "at four"}


def of(operation, data):
    return tolerated(operation, json.dumps(data).encode())


@pytest.mark.parametrize(
    ("operation", "data"),
    [
        ("getUsers", [ALICE, ALICE]),
        ("getUsers", []),
        ("getUserById", ALICE),
        ("getEvents", [TEA]),
        ("getEventById", TEA),
        ("getEventsByUserId", [TEA]),
    ],
)
def test_ordinary_data_need_no_tolerance(operation, data):
    assert of(operation, data) == []


@pytest.mark.parametrize(
    ("operation", "data", "notes"),
    [
        ("getEventById", TEA | {"description": None}, ['description: null, taken as ""']),
        (
            "getUserById",
            {"id": "1"},
            ['name: missing, taken as ""', "events: missing, taken as []"],
        ),
        ("getUserById", ALICE | {"id": 1}, ["id: numbers, taken as text"]),
        ("getUserById", ALICE | {"events": [7, 8, "9"]}, ["events: numbers, taken as text"]),
        ("getEventById", TEA | {"userId": 1.0}, ["userId: numbers, taken as text"]),
        (
            "getEventById",
            TEA | {"room": 4, "floor": 1},
            ["other fields, ignored: floor, room"],
        ),
        (
            "getUserById",
            ALICE | {"events": ["a/b"]},
            ["events: not fit for a path, so it cannot be asked for"],
        ),
        (
            "getEvents",
            [TEA, TEA | {"description": None}, {"id": 5}],
            [
                'description: null, taken as "" (1 of 3)',
                'userId: missing, taken as "" (1 of 3)',
                'title: missing, taken as "" (1 of 3)',
                'description: missing, taken as "" (1 of 3)',
                "id: numbers, taken as text (1 of 3)",
            ],
        ),
    ],
)
def test_each_tolerated_difference_is_reported(operation, data, notes):
    assert of(operation, data) == notes


def test_a_byte_order_mark_is_told():
    assert tolerated("getEvents", b"\xef\xbb\xbf[]") == ["a byte order mark, skipped"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"5", b'["x"]', b"\xff"])
def test_what_was_not_understood_has_no_tolerances(body):
    assert tolerated("getUsers", body) == []

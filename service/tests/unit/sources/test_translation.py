import json
from datetime import UTC, datetime, timedelta

import pytest

from event_service import errors
from event_service.models import Event, User
from event_service.sources.translation import (
    EVENT,
    EVENTS,
    USER,
    USERS,
    Target,
    refuse_by_status,
    seconds,
    stored_id,
)

URL = "http://events.test/v2"
READS = ("getUsers", "getUserById", "getEvents", "getEventById", "getEventsByUserId")


def target(operation):
    method = "POST" if operation == "addEvent" else "GET"
    return Target(operation, method, f"{URL}/{operation}")


def refusal(operation, status, **headers):
    with pytest.raises(errors.UpstreamError) as caught:
        refuse_by_status(target(operation), status, lambda name: headers.get(name, ""))
    assert caught.value.operation == operation
    return caught.value


@pytest.mark.parametrize("operation", [*READS, "addEvent"])
@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 205, 206, 226, 299])
def test_every_2xx_is_a_success(operation, status):
    refuse_by_status(target(operation), status, lambda _name: "")


@pytest.mark.parametrize("operation", ["getUserById", "getEventsByUserId"])
@pytest.mark.parametrize("status", [404, 410, 400, 422])
def test_an_unknown_user_is_told_in_many_ways(operation, status):
    error = refusal(operation, status)

    assert type(error) is errors.UpstreamNotFound
    assert error.usual is (status == 404)
    assert error.reason == f"status {status} to GET {URL}/{operation}"


@pytest.mark.parametrize("operation", ["getUsers", "getEvents", "getEventById"])
@pytest.mark.parametrize("status", [410, 400, 422])
def test_statuses_for_an_unknown_user_have_no_such_meaning_for_other_reads(operation, status):
    assert type(refusal(operation, status)) is errors.UpstreamRefused


@pytest.mark.parametrize("operation", ["getUsers", "getEvents"])
def test_a_list_that_is_not_there_points_at_its_path(operation):
    error = refusal(operation, 404)

    assert type(error) is errors.UpstreamNotFound
    assert error.reason.startswith(f"status 404 to GET {URL}/{operation}: ")
    assert "UPSTREAM_PATHS" in error.reason


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, errors.UpstreamNotFound),
        (409, errors.UpstreamConflict),
        (400, errors.UpstreamRejected),
        (410, errors.UpstreamRejected),
        (413, errors.UpstreamRejected),
        (415, errors.UpstreamRejected),
        (422, errors.UpstreamRejected),
        (405, errors.UpstreamRefused),
        (417, errors.UpstreamRefused),
    ],
)
def test_an_event_may_be_refused_for_good(status, kind):
    error = refusal("addEvent", status)

    assert type(error) is kind
    assert error.reason == f"status {status} to POST {URL}/addEvent"
    if isinstance(error, errors.UpstreamRejected):
        assert error.upstream_status == status


@pytest.mark.parametrize("operation", [*READS, "addEvent"])
@pytest.mark.parametrize("status", [401, 403])
def test_an_upstream_that_does_not_know_us_points_at_the_credentials(operation, status):
    error = refusal(operation, status)

    assert type(error) is errors.UpstreamRefused
    assert f"status {status} to " in error.reason
    assert "credentials" in error.reason


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/users/", "Location: /users/;"),
        ("https://me:secret@other.test/a?token=secret#secret", "Location: https://other.test/a;"),
        ("//other.test/a", "Location: ://other.test/a;"),
        ("", "Location: none;"),
        ("http://[", "Location: ?;"),
        ("/a\x1b[31m\nb", "Location: /a?[31mb;"),
    ],
)
@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
def test_a_redirect_is_told_with_where_it_leads_and_without_its_secrets(status, location, told):
    reason = refusal("getUsers", status, location=location).reason

    assert reason.startswith(f"status {status} to GET {URL}/getUsers, {told}")
    assert "secret" not in reason


def test_an_endless_location_is_cut():
    assert len(refusal("getUsers", 301, location="/" + "a" * 10_000).reason) < 400


@pytest.mark.parametrize("status", [500, 502, 504, 599])
def test_a_5xx_is_a_failure_of_the_upstream(status):
    error = refusal("getUsers", status)

    assert (type(error), error.reason) == (errors.UpstreamFailed, f"status {status}")


@pytest.mark.parametrize("status", [429, 503])
def test_an_upstream_that_asks_for_a_pause_says_how_long(status):
    error = refusal("addEvent", status, **{"retry-after": "7"})

    assert isinstance(error, errors.UpstreamUnavailable)
    assert (error.reason, error.retry_after) == (f"status {status}", 7.0)


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("9" * 400, 86_400.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun Mar  1 12:01:30 2026", 90.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Fri, 06 Nov 2099 08:49:37 GMT", 86_400.0),
        ("Sun, 06 Nov 0000 08:49:37 GMT", 0.0),
        ("", None),
        ("-7", None),
        ("1.5", None),
        ("tomorrow", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, expected):
    assert seconds(header, now=lambda: NOW) == expected


ALICE = User("1", "Alice", ["7"])
TEA = Event("7", "1", "Tea", "at four")


@pytest.mark.parametrize(
    ("sent", "user"),
    [
        ({"id": "1", "name": "Alice", "events": ["7"]}, ALICE),
        ({"id": "1", "name": "Alice", "events": ["7"], "age": 30, "tags": [{}]}, ALICE),
        ({"id": 1, "name": "Alice", "events": [7]}, ALICE),
        ({"id": 1.0, "name": "Alice", "events": ["7"]}, ALICE),
        ({"id": 2**80, "name": "Alice", "events": []}, User(str(2**80), "Alice", [])),
        ({"id": 1.5}, User("1.5", "", [])),
        ({"id": "1"}, User("1", "", [])),
        ({"id": "1", "name": None, "events": None}, User("1", "", [])),
        ({"id": "", "name": "A", "events": ["a/b", "", "é"]}, User("", "A", ["a/b", "", "é"])),
        (None, None),
    ],
)
def test_a_user_is_taken_as_people_send_it(sent, user):
    body = json.dumps(sent).encode()

    assert USER.decode("getUserById", body) == user
    if sent is not None:
        assert USERS.decode("getUsers", b"[" + body + b"]") == [user]


@pytest.mark.parametrize(
    ("sent", "event"),
    [
        ({"id": "7", "userId": "1", "title": "Tea", "description": "at four"}, TEA),
        ({"id": 7, "userId": 1, "title": "Tea", "description": "at four", "room": None}, TEA),
        ({"id": "7", "userId": "1", "title": "Tea", "description": None}, Event("7", "1", "Tea")),
        ({"id": "7", "userId": None, "title": None}, Event("7", "", "")),
        ({"id": "7"}, Event("7", "", "")),
        (None, None),
    ],
)
def test_an_event_is_taken_as_people_send_it(sent, event):
    body = json.dumps(sent).encode()

    assert EVENT.decode("getEventById", body) == event
    if sent is not None:
        assert EVENTS.decode("getEvents", b"[" + body + b"]") == [event]


def test_a_list_of_ordinary_and_odd_records_is_taken_whole():
    body = b'[{"id":"1","name":"A","events":[]},{"id":2,"name":null,"events":null}]'

    assert USERS.decode("getUsers", body) == [User("1", "A", []), User("2", "", [])]


@pytest.mark.parametrize("shape", [USERS, EVENTS])
def test_null_for_a_list_is_an_empty_one(shape):
    assert shape.decode("x", b"null") == []


def test_a_byte_order_mark_is_skipped():
    body = "\ufeff[]".encode()

    assert USERS.decode("getUsers", body) == []
    assert stored_id(b"\xef\xbb\xbf" + b'{"id":"9"}', "ours") == "9"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"<html>",
        b"[1",
        b'[{"id":"1"',
        b"NaN",
        b"{} {}",
        b'[{"id":"\xff"}]',
        b'[{"id":"\\ud800"}]',
        "[]".encode("utf-16"),
        b"\xef\xbb",
    ],
)
def test_a_body_that_is_not_json_is_a_failure_of_the_upstream(body):
    with pytest.raises(errors.UpstreamNonsense) as caught:
        EVENTS.decode("getEvents", body)

    assert (caught.value.operation, caught.value.reason) == ("getEvents", "the body is not JSON")


@pytest.mark.parametrize(
    ("shape", "body", "reason"),
    [
        (USER, b'"text"', "$: expected object, got str"),
        (USER, b"[]", "$: expected object, got array"),
        (USER, b"{}", "$: object missing required field id"),
        (USER, b'{"id":null}', "$.id: expected str or number, got null"),
        (USER, b'{"id":true}', "$.id: expected str or number, got bool"),
        (USER, b'{"id":"1","name":5}', "$.name: expected str, got int"),
        (USER, b'{"id":"1","events":{}}', "$.events: expected array, got object"),
        (
            USER,
            b'{"id":"1","events":["7",{"secret":1}]}',
            "$.events[1]: expected str or number, got object",
        ),
        (USERS, b"{}", "$: expected array, got object"),
        (USERS, b"[{},{}]", "$[0]: object missing required field id"),
        (
            EVENTS,
            b'[{"id":"1"},{"id":"1","title":{}}]',
            "$[1].title: expected str, got object",
        ),
        (EVENT, b'{"id":"1","x":' + b"[" * 5000 + b"]" * 5000 + b"}", "$: nested too deeply"),
    ],
)
def test_json_of_another_shape_names_the_place_and_is_no_failure(shape, body, reason):
    with pytest.raises(errors.UpstreamMisshapen) as caught:
        shape.decode("op", body)

    assert (caught.value.operation, caught.value.reason) == ("op", reason)
    assert not isinstance(caught.value, errors.UpstreamFault)


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (b"", "ours"),
        (b"null", "ours"),
        (b"OK", "ours"),
        (b"<html>", "ours"),
        (b"[]", "ours"),
        (b"\xff\xfe", "ours"),
        (b"[" * 5000, "ours"),
        (b"{}", "ours"),
        (b'{"success":true}', "ours"),
        (b'{"success":null,"id":null}', "ours"),
        (b'{"success":"false","id":{"a":1}}', "ours"),
        (b'{"id":[1]}', "ours"),
        (b'{"id":true}', "ours"),
        (b'{"id":"\\ud800"}', "ours"),
        (b'{"success":true,"id":"9"}', "9"),
        (b'{"id": 5 }', "5"),
        (b'{"id":-5.0}', "-5.0"),
        (b'{"id":123456789012345678901234567890}', "123456789012345678901234567890"),
        (b'{"id":"../9 \\u00e9"}', "../9 é"),
        (b'{"id":"x","userId":"1","title":{"any":"shape"}}', "x"),
        (b'[{"success":false}]', "ours"),
    ],
)
def test_a_2xx_is_stored_under_the_replys_id_or_else_ours(body, stored):
    assert stored_id(body, "ours") == stored


@pytest.mark.parametrize("body", [b'{"success":false}', b' { "id" : "9", "success" : false } '])
def test_only_success_false_says_that_nothing_was_stored(body):
    with pytest.raises(errors.UpstreamRefused, match="refused") as caught:
        stored_id(body, "ours")

    assert caught.value.reason == "success:false"


def test_seconds_count_from_now_if_nobody_says_otherwise():
    later = datetime.now(UTC) + timedelta(hours=1)

    left = seconds(later.strftime("%a, %d %b %Y %H:%M:%S GMT"))

    assert left is not None
    assert 3_500 < left <= 3_600

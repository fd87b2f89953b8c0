import io

import pytest

from event_service.models import Event, User
from event_service.sources.data_file import DataFault, read_file, written
from event_service.sources.sql_events import ADDED, Placed

USER = '{"id":"1","events":["9"]}'
EVENT = '{"id":"9","userId":"1"}'


def read(text: str) -> tuple[list[User], list[Placed]]:
    data = read_file(io.BytesIO(text.encode()))
    return list(data.users), list(data.events)


def document(users: str, events: str) -> str:
    return '{"users":[' + users + '],"events":[' + events + "]}"


@pytest.mark.parametrize(
    "text", [document(USER, EVENT), '{"events":[' + EVENT + '],"users":[' + USER + "]}"]
)
def test_either_list_may_come_first(text):
    users, events = read(text)
    assert users == [User("1", "", ["9"])]
    assert events == [Placed(Event("9", "1", ""), 0)]


def test_an_event_has_the_place_of_its_users_list_or_comes_last():
    given = ",".join('{"id":"' + each + '","userId":1}' for each in "acb")
    _, events = read(document('{"id":"1","events":["b","a"]}', given))
    assert [each.place for each in events] == [1, ADDED, 0]


@pytest.mark.parametrize(
    ("users", "events", "fault"),
    [
        ('{"id":"1"},{"name":"B"}', "", "$.users[1]: "),
        ('{"id":"a/b"}', "", "$.users[0].id: "),
        ('{"id":"1"},{"id":"1"}', "", "$.users[1].id: '1' is there twice"),
        ('{"id":"1","events":["9"]}', "", "$.users[0].events[0]: there is no event"),
        ('{"id":"1","name":"a\\u0000"}', "", "$.users[0]: a text holds the character NUL"),
        ("null", "", "$.users[0]: must not be null"),
        ("NaN", "", "$.users[0]"),
        ('{"id" "1"}', "", "$.users[0]: is not JSON"),
        ('{"id":"1","events":["9","9"]}', EVENT, "$.users[0].events[1]: '9' is listed before"),
        (USER + ',{"id":"2","events":["9"]}', EVENT, "in $.users[0].events[0]"),
        (USER, EVENT + "," + EVENT, "$.events[1].id: "),
        (USER + ',{"id":"2"}', '{"id":"9","userId":"2"}', "$.events[0].userId: "),
        ("", '{"id":"1","userId":"7","title":"t"}', "$.events[0].userId: there is no user"),
        (USER, EVENT + ',{"id":"8","userId":"1","title":[]}', "$.events[1].title: "),
        (USER, EVENT + ',{"id":"8","userId":"1","description":"\\u0000"}', "$.events[1]: "),
    ],
)
def test_a_record_that_cannot_be_imported_is_named(users, events, fault):
    with pytest.raises(DataFault) as told:
        read(document(users, events))
    assert fault in str(told.value)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"users":[]}', '{"users":[],"events":{}}'])
def test_a_file_of_another_shape_is_reported(text):
    with pytest.raises(DataFault, match=r"\$"):
        read(text)


class Unreadable(io.BytesIO):
    def read(self, _size=-1):
        raise OSError(5, "Input/output error")


def test_a_file_that_breaks_off_is_a_fault_of_the_data():
    with pytest.raises(DataFault, match="Input/output error"):
        list(read_file(Unreadable()).users)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "records",
    [[], [User("1", "A", [])], [User("1", "A", ["9"]), User("2", "B", []), Event("9", "1", "t")]],
)
async def test_what_is_written_is_read_again(records):
    async def everything():
        for record in records:
            yield record

    text = b"".join([piece async for piece in written(everything())]).decode()
    users, events = read(text)
    assert [*users, *(each.event for each in events)] == records

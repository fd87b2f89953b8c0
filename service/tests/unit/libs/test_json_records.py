import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.json_records import NotRecords, records

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


class Trickle:
    """A file whose pieces are as long as one likes."""

    def __init__(self, body: bytes, sizes: list[int]):
        self._file = io.BytesIO(body)
        self._sizes = sizes
        self._reads = 0

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def read(self, size: int) -> bytes:
        self._reads += 1
        return self._file.read(min(size, self._sizes[self._reads % len(self._sizes)]))


class Endless:
    """So many records that are never all there."""

    def __init__(self, number: int):
        self._number = number
        self._left = 0

    def seek(self, offset: int) -> int:
        self._left = self._number
        return offset

    def read(self, _size: int) -> bytes:
        if self._left < 0:
            return b""
        self._left -= 1
        if self._left < 0:
            return b'{}],"events":[]}'
        head = b'{"users":[' if self._left == self._number - 1 else b""
        return head + b'{"id":"1","name":"%s"},' % (b"x" * 1_000)


def read(body, name="users"):
    return [json.loads(each) for each in records(io.BytesIO(body), name)]


@given(
    users=st.lists(VALUES, max_size=4),
    events=st.lists(VALUES, max_size=4),
    other=VALUES,
    indent=st.sampled_from([None, 1]),
    ascii_=st.booleans(),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_wherever_the_pieces_end_the_records_are_as_they_are_written(
    users, events, other, indent, ascii_, sizes
):
    document = {"other": other, "events": events, "users": users}
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_).encode("utf-8", "replace")
    document = json.loads(body)
    for name in ("users", "events"):
        found = [json.loads(each) for each in records(Trickle(body, sizes), name)]
        assert found == document[name]


def test_a_byte_order_mark_is_skipped():
    assert read(b'\xef\xbb\xbf{"users":[1]}') == [1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "$: must be an object"),
        (b"[]", "$: must be an object"),
        (b"nonsense", "$: must be an object"),
        (b"{}", "$: has no users"),
        (b'{"events":[]}', "$: has no users"),
        (b'{"users":{}}', "$.users: must be an array"),
        (b'{"users":null}', "$.users: must be an array"),
        (b'{"users":[],"users":[]}', "$.users: is there twice"),
        (b'{"users":[1 2]}', "$.users: must be an array"),
        (b'{"users":[1,]}', "$.users: is not JSON (nothing follows a comma)"),
        (b'{"users":[1],}', "$: is not JSON (nothing follows a comma)"),
        (b'{"users":[1]', "$: must be an object"),
        (b'{"users":[1', "$.users: must be an array"),
        (b'{"users":[1,{"a":tru', "$.users[1]: is not JSON"),
        (b'{"users":[1,{"a" 1}]}', "$.users[1]: is not JSON"),
        (b'{"users":["a]}', "$.users[0]: is not JSON"),
        (b'{"users":[' + b"[" * 100_000, "$.users[0]: is nested too deeply"),
        (b'{"users":[1]} x', "$: something follows the object"),
        (b'{"users":[1]}{', "$: something follows the object"),
        (b"{users:[1]}", "$: is not JSON (a name is missing)"),
        (b'{"events":[1,{]}', "$.events[1]: is not JSON"),
        (b'{"users":["\xff"]}', "is not UTF-8"),
        (b'{"users":["\xc3', "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(body, said):
    with pytest.raises(NotRecords) as told:
        read(body)
    assert said in str(told.value)


def test_a_fault_is_found_without_reading_what_follows():
    body = io.BytesIO(b'{"users":[{"id" 1},' + b'{"id":"1"},' * 100_000)
    with pytest.raises(NotRecords, match=r"\$\.users\[0\]"):
        list(records(body, "users"))
    assert body.tell() < 200_000


def test_ten_thousand_records_take_the_memory_of_a_few():
    tracemalloc.start()
    try:
        number = sum(1 for _ in records(Endless(10_000), "users"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert number == 10_001
    assert most < 1_000_000

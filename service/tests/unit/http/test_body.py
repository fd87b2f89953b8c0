import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from event_service.errors import (
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)
from event_service.http.body import MAX_BODY, may_repeat_a_name, read_json
from event_service.models import NewEvent

pytestmark = pytest.mark.anyio

decoder = msgspec.json.Decoder(NewEvent)
AN_ID = "must be a string of 1 to 128 letters, digits or -._~!$&'()*+,;=:@, not '.' or '..'"
VALID = b'{"userId":"1","title":"Standup"}'


def request_with(*chunks: bytes, **headers: str) -> Request:
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False

    async def receive() -> Message:
        return messages.pop(0)

    fields = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    return Request({"type": "http", "headers": raw}, receive)


async def test_a_body_may_come_in_pieces():
    event = await read_json(request_with(VALID[:7], b"", VALID[7:]), decoder)

    assert event == NewEvent("1", "Standup")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"userId": 7}, {"$.userId": AN_ID}),
        ({"userId": "a/b"}, {"$.userId": AN_ID}),
        ({"userId": "a\n"}, {"$.userId": AN_ID}),
        ({"title": ""}, {"$.title": "must be a string of 1 to 200 characters without NUL"}),
        ({"title": "x" * 201}, {"$.title": "must be a string of 1 to 200 characters without NUL"}),
        ({"title": None}, {"$.title": "must be a string of 1 to 200 characters without NUL"}),
        (
            {"description": 1},
            {"$.description": "must be a string of up to 2000 characters without NUL"},
        ),
        ({"colour": "red"}, {"$.colour": "is not a known field"}),
        ({"title": ["x"], "a": 1, "b": {"c": []}}, {
            "$.a": "is not a known field",
            "$.b": "is not a known field",
            "$.title": "must be a string of 1 to 200 characters without NUL",
        }),
    ],
)  # fmt: skip
async def test_each_fault_is_told_in_plain_words(members: dict[str, Any], expected: dict[str, str]):
    body = json.dumps({"userId": "1", "title": "Standup"} | members).encode()

    with pytest.raises(ValidationFailed) as caught:
        await read_json(request_with(body), decoder)

    assert dict(caught.value.errors) == expected


async def test_what_is_missing_is_told():
    with pytest.raises(ValidationFailed) as caught:
        await read_json(request_with(b"{}"), decoder)

    assert caught.value.errors == [("$.userId", "is required"), ("$.title", "is required")]


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5_000, b"-0.0", b"1" + b"0" * 400])
async def test_a_number_of_any_size_is_not_a_string(number: bytes):
    with pytest.raises(ValidationFailed) as caught:
        await read_json(request_with(b'{"userId":"1","title":%s}' % number), decoder)

    assert [path for path, _ in caught.value.errors] == ["$.title"]


async def test_the_text_names_a_few_faults_of_many():
    with pytest.raises(ValidationFailed) as caught:
        await read_json(request_with(json.dumps(dict.fromkeys("abcdefgh")).encode()), decoder)

    assert str(caught.value).endswith("; and 7 more")
    assert len(caught.value.errors) == 10


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'\xef\xbb\xbf{"userId":"1","title":"a"}',
        '{"userId":"1","title":"a"}'.encode("utf-16"),
        b'{"userId":"1","title":"\xff"}',
        b'{"userId":"1","title":"\\ud800"}',
        b'{"userId":1,"title":"\\ud800"}',
        b'{"userId":"1","title":NaN}',
        b'{"userId":"1","title":Infinity}',
        b'{"userId":"1","title":"a"} x',
        b'{"userId":"1","title":"a\x00"}',
        b'{"userId":"1","title":"a","title":"b"}',
        b'{"userId":"1","title":"a","titl\\u0065":"b"}',
        b'{"userId":1,"userId":"1","title":"b"}',
        b'{"userId":"1","title":"a","x":{"y":1,"y":2}}',
        b"[" * 60_000,
        b'{"userId":"1","title":' + b"[" * 60_000,
        b'{"a":' * 13_000,
    ],
)
async def test_invalid_or_ambiguous_json_is_refused(body: bytes):
    with pytest.raises(InvalidRequest):
        await read_json(request_with(body), decoder)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_type": "application/json; charset"},
        {"content_type": "application/json; charset=utf-8; charset=utf-16"},
        {"content_type": "application/jsonp"},
        {"content_type": ""},
        {"content_encoding": "gzip"},
    ],
)
async def test_a_body_in_another_form_is_refused(headers: dict[str, str]):
    with pytest.raises(UnsupportedMediaType):
        await read_json(request_with(VALID, **headers), decoder)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        'application/json;charset="UTF-8"',
        "application/json; version=1; charset=utf-8;",
    ],
)
async def test_json_in_utf_8_goes_by_several_names(content_type: str):
    assert await read_json(request_with(VALID, content_type=content_type), decoder)


async def test_a_body_of_just_the_most_bytes_is_read():
    assert await read_json(request_with(VALID.ljust(MAX_BODY)), decoder)


@pytest.mark.parametrize(
    "request_",
    [
        request_with(b"", content_length=str(MAX_BODY + 1)),
        request_with(VALID.ljust(MAX_BODY), b" "),
    ],
)
async def test_a_byte_more_is_refused_whether_announced_or_not(request_: Request):
    with pytest.raises(PayloadTooLarge):
        await read_json(request_, decoder)


text = st.text(alphabet=st.sampled_from(["a", ":", '"', "\\", "{", ",", " ", "é"]), max_size=6)
keys = st.sampled_from(["userId", "title", "description"])
pairs = st.lists(st.tuples(keys, text), max_size=6)


@given(members=pairs, ascii_only=st.booleans(), colon=st.sampled_from([":", " : ", ":\n"]))
def test_a_key_that_comes_twice_is_never_overlooked(
    *, members: list[tuple[str, str]], ascii_only: bool, colon: str
):
    required = [("userId", "1"), ("title", "a")]
    members = [*members, *(pair for pair in required if pair[0] not in dict(members))]
    members = [("userId", "1") if name == "userId" else (name, value) for name, value in members]
    body = ",".join(
        f"{json.dumps(name)}{colon}{json.dumps(value, ensure_ascii=ascii_only)}"
        for name, value in members
    )
    body = ("{" + body + "}").replace("{", "{ ", 1).encode()
    try:
        decoder.decode(body)
    except msgspec.ValidationError:
        return  # an empty title: refused before keys matter

    if len(dict(members)) < len(members):
        assert may_repeat_a_name(body, decoder.type)


@pytest.mark.parametrize(
    "body",
    [
        b'{"userId":"1","title":"Standup"}',
        b'{"userId":"1","title":"Standup at 10:00"}',
        b'{"userId":"1","title":"a","description":"b: c: d"}',
    ],
)
def test_an_everyday_body_is_not_parsed_twice(body: bytes):
    decoder.decode(body)
    assert not may_repeat_a_name(body, decoder.type)

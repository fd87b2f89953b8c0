"""Reads and validates JSON bodies; reports all faults of a body at once, each with its path."""

import json
from email.message import Message
from functools import cache, lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo
from starlette.requests import Request

from event_service.errors import (
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)

S = TypeVar("S", bound=msgspec.Struct)

MAX_BODY = 64 * 1024
LONGEST_CONTENT_TYPE = 256
# ASCII is a subset of UTF-8.
UTF_8 = frozenset({"utf-8", "utf8", "us-ascii"})


async def read_json(request: Request, decoder: msgspec.json.Decoder[S]) -> S:
    """The body as the decoder's struct, whose optional fields must default to None.

    Raises UnsupportedMediaType, PayloadTooLarge, InvalidRequest if it is not JSON, and
    ValidationFailed if it does not match the schema.
    """
    body = await _read(request, declared=_declared_length(request))
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError:
        raise ValidationFailed(_faults(_parse(body), decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    if may_repeat_a_name(body, decoder.type):
        _parse(body)
    return value


@lru_cache(maxsize=256)
def _is_json(content_type: bytes) -> bool:
    """Whether it means JSON in UTF-8; other parameters are ignored (RFC 8259, 11)."""
    if len(content_type) > LONGEST_CONTENT_TYPE:
        return False
    # The MIME parser handles `;` and `=` inside quotes.
    header = Message()
    header["content-type"] = content_type.decode("latin-1")
    if header.get_content_type() != "application/json":
        return False
    parameters = header.get_params([])
    return all(
        value.strip().lower() in UTF_8 for name, value in parameters if name.lower() == "charset"
    )


def _declared_length(request: Request) -> bytes:
    """The Content-Length. Raises UnsupportedMediaType unless the headers announce plain JSON."""
    content_type, encoding, length = b"", b"identity", b"0"
    # One pass: three lookups in `request.headers` cost as much as decoding the body.
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-encoding":
            encoding = value
        elif name == b"content-length":
            length = value
    if not _is_json(content_type):
        raise UnsupportedMediaType("The body must be application/json in UTF-8.")
    if encoding.lower() != b"identity":
        raise UnsupportedMediaType("The body must be sent as it is, without a content encoding.")
    return length


async def _read(request: Request, *, declared: bytes) -> bytes:
    if not declared.isdigit() or int(declared) > MAX_BODY:
        raise PayloadTooLarge(f"A body may have at most {MAX_BODY} bytes.")
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            # The client left, or the body is malformed; the server does not tell which.
            raise InvalidRequest("The body broke off, or its chunks are garbled.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise PayloadTooLarge(f"A body may have at most {MAX_BODY} bytes.")
        more = message.get("more_body", False)
    return bytes(body)


def may_repeat_a_name(body: bytes, kind: type[msgspec.Struct]) -> bool:
    r"""Whether `body`, which was decoded to a `kind`, may have a duplicate key. False is certain.

    All its keys are fields of `kind`, and without a '\\' in the body no key is escaped.
    """
    if b"\\" in body:
        return True
    # A loop, because a generator would double the cost.
    for name in _quoted_names(kind):  # noqa: SIM110
        if body.count(name) > 1:
            return True
    return False


@cache
def _quoted_names(kind: type[msgspec.Struct]) -> tuple[bytes, ...]:
    return tuple(f'"{name}"'.encode() for name in _fields(kind))


def _parse(body: bytes) -> Any:
    """The JSON value. Raises InvalidRequest for faults that msgspec does not report.

    One is a duplicate key: two parsers may read different values (RFC 8259, 4).
    """
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_int=float,  # accepts any length; the schema checks the value
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        raise InvalidRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidRequest("The body has the same key twice in one object.")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _faults(value: Any, kind: type[S]) -> list[tuple[str, str]]:
    """All faults; the decoder stops at the first one."""
    if not isinstance(value, dict):
        return [("$", "must be an object")]
    fields = _fields(kind)
    faults = [(f"$.{name}", "is not a known field") for name in value if name not in fields]
    for name, field in fields.items():
        if name not in value:
            if field.required:
                faults.append((f"$.{name}", "is required"))
            continue
        try:
            msgspec.convert(value[name], field.type)
        except msgspec.ValidationError as error:
            faults.append((f"$.{name}", _wanted(field.type) or str(error)))
    return faults


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    """The fields by their JSON names."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _wanted(kind: Any) -> str:
    """What a field must be, from the description of its type; "" if that has none."""
    info = inspect.type_info(kind)
    for part in info.types if isinstance(info, inspect.UnionType) else [info]:
        if isinstance(part, inspect.Metadata) and part.extra_json_schema:
            return f"must be {part.extra_json_schema['description']}"
    return ""

"""Reads and validates JSON bodies: every fault of a body at once, each with its path."""

import json
import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from event_service.errors import (
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)

S = TypeVar("S", bound=msgspec.Struct)

MAX_BODY = 64 * 1024
_json_type = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?\Z', re.IGNORECASE)


async def read_json(request: Request, decoder: msgspec.json.Decoder[S]) -> S:
    """The body as the decoder's struct.

    Raises UnsupportedMediaType, PayloadTooLarge, InvalidRequest for what is not JSON and
    ValidationFailed for JSON of another shape.
    """
    content_type = request.headers.get("content-type", "")
    if not _json_type.match(content_type):
        raise UnsupportedMediaType("The body must be application/json in UTF-8.")
    body = await _read(request)
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError:
        raise ValidationFailed(_faults(body, decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    _refuse_duplicate_keys(body)
    return value


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MAX_BODY:
        raise PayloadTooLarge(f"A body may have at most {MAX_BODY} bytes.")
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > MAX_BODY:
            raise PayloadTooLarge(f"A body may have at most {MAX_BODY} bytes.")
    return bytes(chunks)


def _faults(body: bytes, kind: type[S]) -> list[tuple[str, str]]:
    """Every fault, where the decoder stops at the first."""
    _refuse_duplicate_keys(body)
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise InvalidRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    if not isinstance(value, dict):
        return [("$", "must be an object")]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    faults = [(f"$.{name}", "unknown field") for name in value if name not in fields]
    for name, field in fields.items():
        if name not in value:
            if field.required:
                faults.append((f"$.{name}", "required"))
            continue
        try:
            msgspec.convert(value[name], field.type)
        except msgspec.ValidationError as exc:
            faults.append((f"$.{name}", str(exc).split(" - at ")[0]))
    return faults


def _refuse_duplicate_keys(body: bytes) -> None:
    """Two readers of a body with duplicate keys may see two different bodies (RFC 8259, 4)."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise InvalidRequest("The body has the same key twice in one object.")
        return members

    json.loads(body, object_pairs_hook=unique)

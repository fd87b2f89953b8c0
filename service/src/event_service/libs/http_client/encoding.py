"""Decodes bodies that arrive compressed although we did not ask for compression."""

import zlib

from event_service.libs.http_client.errors import TooLarge, Undecodable

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
# RFC 1952, 2.2: a gzip body is one member or several; thousands of empty ones are an attack.
_MEMBERS = 64


def decode(body: bytes, encoding: str, limit: int) -> bytes:
    """The body decoded from its content encoding, `gzip` or `deflate`.

    Raises TooLarge for more than `limit` bytes, before all of them are in memory, and Undecodable
    for other encodings and for broken or incomplete data.
    """
    match encoding.lower():
        case "identity":
            return body
        case "gzip" | "x-gzip":
            return _inflate(body, _GZIP, limit)
        case "deflate":
            # RFC 9110, 8.4.1.2: with a zlib wrapper, which some servers omit.
            return _inflate(body, _ZLIB if _is_wrapped(body) else _RAW, limit)
        case _:
            raise Undecodable("the body has a content encoding that was not asked for")


def _inflate(body: bytes, form: int, limit: int) -> bytes:
    decoded = b""
    for _ in range(_MEMBERS if form == _GZIP else 1):
        if not body:
            break
        decoder = zlib.decompressobj(form)
        try:
            decoded += decoder.decompress(body, limit + 1 - len(decoded))
        except zlib.error:
            raise Undecodable("the body is not what its content encoding says") from None
        if len(decoded) > limit:
            raise TooLarge(f"more than {limit} bytes when decoded")
        if not decoder.eof:
            raise Undecodable("the encoded body is not whole")
        body = decoder.unused_data
    if body:
        raise Undecodable("there is more after the end of the encoded body")
    return decoded


def _is_wrapped(body: bytes) -> bool:
    """RFC 1950, 2.2: deflate is method 8, and the first two bytes are a multiple of 31."""
    first = int.from_bytes(body[:2])
    return first >> 8 & 0x0F == zlib.DEFLATED and first % 31 == 0

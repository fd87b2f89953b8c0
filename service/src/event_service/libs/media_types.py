from collections.abc import Iterator, Sequence


def preferred(accept: str, offered: Sequence[str]) -> str:
    """The offered media type that an Accept header prefers (RFC 9110, 12.5.1).

    The first of the offers if several rank equally or none is acceptable: an answer helps more than
    a refusal. Malformed parts are ignored.
    """
    ranges = list(_ranges(accept))
    return (
        max(offered, key=lambda media_type: _quality(media_type, ranges)) if ranges else offered[0]
    )


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    kind = media_type.partition("/")[0]
    for name in (media_type, f"{kind}/*", "*/*"):
        # The most specific range decides, even if its weight is lower.
        found = [quality for asked, quality in ranges if asked == name]
        if found:
            return max(found)
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = _number(value.strip())
        if "/" in name:
            yield name, quality


def _number(text: str) -> float:
    """A weight; 0 if malformed."""
    digits = text.replace(".", "", 1)
    weight = float(text) if digits.isascii() and digits.isdecimal() else 0.0
    return weight if weight <= 1.0 else 0.0

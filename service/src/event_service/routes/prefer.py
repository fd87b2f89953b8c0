"""The preferences `respond-async` and `wait` of the `Prefer` header (RFC 7240)."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# A quoted string, even an unclosed one, or a separator, or the text between separators.
_part = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[,;]|[^",;]+|\\')
# More digits are beyond any deadline anyway.
MOST_DIGITS = 9


class Preference(NamedTuple):
    """`wait`: seconds that the client would wait for the result before it accepts a 202."""

    respond_async: bool
    wait: float


def parse_prefer(values: Sequence[str]) -> Preference:
    """The preferences in the header's lines. If one comes twice, the first counts.

    Malformed ones are ignored, as the RFC requires.
    """
    found: dict[str, str] = {}
    for preference in _preferences(", ".join(values)):
        name, _, value = preference.partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    seconds = float(wait[:MOST_DIGITS]) if wait.isascii() and wait.isdigit() else 0.0
    return Preference("respond-async" in found, seconds)


def _preferences(text: str) -> Iterator[str]:
    """Each preference without its parameters."""
    preference, in_parameters = "", False
    for part in _part.findall(text):
        if part == ",":
            yield preference
            preference, in_parameters = "", False
        elif part == ";":
            in_parameters = True
        elif not in_parameters:
            preference += part
    yield preference

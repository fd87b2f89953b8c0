"""The `Prefer` header (RFC 7240), as far as it says whether an answer may come later."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# A quoted string as a whole, one that never ends included, or what stands between the marks.
_part = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[,;]|[^",;]+|\\')
# More is beyond any deadline, too.
MOST_DIGITS = 9


class Preference(NamedTuple):
    """`wait` is in seconds: how long the client would rather wait than be told to ask later."""

    respond_async: bool
    wait: float


def parse_prefer(values: Sequence[str]) -> Preference:
    """What the header's lines prefer. Of a preference that comes twice, the first counts.

    What cannot be read is ignored, as the RFC wants it.
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

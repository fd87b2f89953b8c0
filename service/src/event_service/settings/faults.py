"""Explains invalid settings to the person who set them."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, get_args

from pydantic.fields import FieldInfo

PREFIX = "EVENT_SERVICE_"
LONGEST_QUOTE = 100


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def unknown(name: str, known: Iterable[str]) -> str:
    """The fault for an unknown setting. Its value is not quoted, because it may be a secret."""
    nearest = _nearest(name, known)
    meant = _did_you_mean(variable(nearest)) if nearest else ""
    return f"{printable(variable(name))}: unknown variable{meant}"


def describe(
    details: Mapping[str, Any], field: FieldInfo, text: str | None, *, origin: str = ""
) -> str:
    """The text for one fault that pydantic found, given the variable's text, if any.

    `text` is what may be shown of it.
    """
    name, *inner = details["loc"]
    sentence, near = _sentence(details, field, text)
    if inner and isinstance(inner[0], str):
        sentence = f"the value of {printable(inner[0])} {sentence}"
    got = "" if text is None else f" (got {quote(text)}{origin})"
    return f"{variable(name)}: {sentence}{got}{_did_you_mean(near)}"


def quote(text: str) -> str:
    if len(text) > LONGEST_QUOTE:
        text = text[:LONGEST_QUOTE] + "…"
    return repr(text) if text.isprintable() else ascii(text)


def printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


def _sentence(details: Mapping[str, Any], field: FieldInfo, text: str | None) -> tuple[str, str]:
    """What is wrong, and which value was probably meant."""
    kind = details["type"]
    if kind == "value_error":
        return str(details["ctx"]["error"]).rstrip("."), ""
    if kind in {"enum", "literal_error"}:
        allowed = _allowed(field)
        return f"must be {_either(allowed)}", _nearest((text or "").lower(), allowed)
    if kind == "string_type":
        return "must be a string", ""
    if kind.startswith("bool"):
        return "must be true or false", ""
    return f"must be a {_number(field)}", ""


def _allowed(field: FieldInfo) -> list[str]:
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind]
    return list(get_args(kind))


def _number(field: FieldInfo) -> str:
    kind = "whole number" if field.annotation is int else "number"
    limits = {
        bound: getattr(each, bound)
        for each in field.metadata
        for bound in ("ge", "gt", "le")
        if hasattr(each, bound)
    }
    if "gt" in limits:
        return f"{kind} above {limits['gt']}, at most {limits['le']}"
    return f"{kind} from {limits['ge']} to {limits['le']}"


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"


def _nearest(word: str, words: Iterable[str]) -> str:
    return next(iter(get_close_matches(word, words, n=1, cutoff=0.5)), "")


def _did_you_mean(word: str) -> str:
    return f"; did you mean {word}?" if word else ""


def as_text(value: Any) -> str:
    """A value as one would write it in its variable."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)

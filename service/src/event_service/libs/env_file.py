"""Reads `.env` files and reports everything it cannot use."""

import codecs
import re
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_name = re.compile(r"\s*(?:export\s+)?['\"]?([A-Za-z_][A-Za-z0-9_]{0,63})").match
_is_name = re.compile(r"(?:export\s+)?[A-Za-z_][A-Za-z0-9_]{0,63}").fullmatch
_needs_quotes = re.compile(r"['\"]|\s|.*(?:[\r\n]|\s#|\s\Z)", re.DOTALL).match


class EnvFile(NamedTuple):
    """`faults` and `notes` are sentences that quote no value, because a value may be a secret."""

    values: dict[str, str]
    faults: list[str]
    notes: list[str]


def read_env_file(path: Path) -> EnvFile:
    """The file's values; nothing if there is no file. Never raises: each problem becomes a fault.

    `${NAME}` in a value is replaced by another value or variable, as in python-dotenv.
    """
    notes: list[str] = []
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return EnvFile({}, [], notes)
    except IsADirectoryError:
        return EnvFile({}, [f"{path} is a folder, not a file"], notes)
    except OSError as error:
        return EnvFile({}, [f"{path} cannot be read: {error.strerror}"], notes)
    if raw.startswith(codecs.BOM_UTF8):
        notes.append(f"{path} begins with a byte order mark, which is skipped; save it without one")
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = "is UTF-16" if raw.startswith(_UTF_16) else f"is not UTF-8 text (line {line})"
        return EnvFile({}, [f"{path} {found}; save it as UTF-8"], notes)
    if "\0" in text:
        return EnvFile({}, [f"{path} is not text: it holds NUL bytes; save it as UTF-8"], notes)
    bindings = list(parse_stream(StringIO(text)))
    faults = [
        f"{path} line {_line(binding)}: {fault}"
        for binding in bindings
        if (fault := _fault(binding))
    ]
    # Leave out faulty lines: the library would log a warning for each.
    sound = StringIO("".join(each.original.string for each in bindings if not each.error))
    values = {
        name: value for name, value in dotenv_values(stream=sound).items() if value is not None
    }
    return EnvFile(values, faults, notes)


def env_line(name: str, value: str) -> str:
    """A line that `read_env_file` reads back as this value, quoted only if necessary.

    A value with `${` is commented out, because reading it would expand a variable.
    """
    if _needs_quotes(value):
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"# {name}={value}" if "${" in value else f"{name}={value}"


def _fault(binding: Binding) -> str:
    text = binding.original.string.strip()
    if not binding.error:
        if not binding.key or binding.value is not None:
            return ""
        # A name without `=` is an assignment that somebody forgot to finish.
        return f"{text} has no '='" if _is_name(text) else "must be NAME=value"
    named = _name(text)
    name = named[1] if named else ""
    rest = text[named.end() :].lstrip() if named else text
    if not name:
        return "must be NAME=value"
    if not rest.startswith("="):
        return f"{name} is not followed by '='"
    return f"the quote that opens the value of {name} is not closed, or more follows it"


def _line(binding: Binding) -> int:
    string = binding.original.string
    before = string[: len(string) - len(string.lstrip())]
    return binding.original.line + before.count("\n")

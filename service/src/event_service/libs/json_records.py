"""Reads an array within a JSON object record by record, for files that do not fit in memory."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Protocol

PIECE = 64 * 1024
# The longest token other than a string: so much may be missing at the end of a piece of the file.
LONGEST_TOKEN = 16
_space = re.compile(r"[ \t\n\r]*").match
_scan = json.JSONDecoder().raw_decode


class Readable(Protocol):
    def read(self, size: int) -> bytes: ...
    def seek(self, offset: int) -> int: ...


class NotRecords(ValueError):
    """The file is not JSON, or not an object with such an array; the text says where and why."""


def records(file: Readable, name: str) -> Iterator[bytes]:
    """The elements of the object's array `name`, each as its original text.

    Reads the whole file. Raises NotRecords, and OSError from the file.
    """
    file.seek(0)
    text = _Text(file)
    found = False
    text.path = "$"
    for member in text.members():
        text.path = f"$.{member}"
        if member != name:
            text.pass_over()
        elif found:
            raise NotRecords(f"$.{name}: is there twice")
        else:
            found = True
            yield from text.elements()
        text.path = "$"
    if text.peek():
        raise NotRecords("$: something follows the object")
    if not found:
        raise NotRecords(f"$: has no {name}")


class _Text:
    """The unread text of a file. `path` is the place in the JSON, for messages."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._read = ""
        self._at = 0
        self._ended = False
        self.path = "$"

    def members(self) -> Iterator[str]:
        """The names of an object. After each name, the caller must read its value."""
        self._take("{", "an object")
        while self.peek() != "}":
            if self.peek() != '"':
                raise NotRecords(f"{self.path}: is not JSON (a name is missing)")
            name: str = json.loads(self._value())
            self._take(":", "an object")
            yield name
            if not self._goes_on("}"):
                break
        self._take("}", "an object")

    def elements(self) -> Iterator[bytes]:
        array = self.path
        self._take("[", "an array")
        number = 0
        while self.peek() != "]":
            self.path = f"{array}[{number}]"
            yield self._value().encode()
            number += 1
            self.path = array
            if not self._goes_on("]"):
                break
        self._take("]", "an array")

    def pass_over(self) -> None:
        """Skip a value; an array in parts."""
        if self.peek() != "[":
            self._value()
            return
        for _ in self.elements():
            pass

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            space = _space(self._read, self._at)
            if space is not None:
                self._at = space.end()
            if self._at < len(self._read) or self._ended:
                return self._read[self._at : self._at + 1]
            self._read_on()

    def _goes_on(self, end: str) -> bool:
        """Whether a comma, and so another element, follows; skips the comma."""
        if self.peek() != ",":
            return False
        self._at += 1
        if self.peek() == end:
            raise NotRecords(f"{self.path}: is not JSON (nothing follows a comma)")
        return True

    def _take(self, wanted: str, what: str) -> None:
        if self.peek() != wanted:
            raise NotRecords(f"{self.path}: must be {what}, as JSON")
        self._at += 1

    def _value(self) -> str:
        self.peek()
        while True:
            try:
                _, end = _scan(self._read, self._at)
            except json.JSONDecodeError as error:
                near_end = error.pos + LONGEST_TOKEN >= len(self._read)
                if self._ended or not (near_end or error.msg.startswith("Unterminated string")):
                    raise NotRecords(f"{self.path}: is not JSON ({error.msg})") from error
            except RecursionError as error:
                raise NotRecords(f"{self.path}: is nested too deeply") from error
            else:
                # `1` may be the beginning of `1.5e+3`.
                if end + LONGEST_TOKEN < len(self._read) or self._ended:
                    value, self._at = self._read[self._at : end], end
                    return value
            self._read_on()

    def _read_on(self) -> None:
        left = self._read[self._at :]
        # Read as much again as is held; small pieces would rescan a long record many times.
        piece = self._file.read(max(PIECE, len(left)))
        self._ended = not piece
        try:
            self._read = left + self._decoder.decode(piece, final=self._ended)
        except UnicodeDecodeError as error:
            raise NotRecords(f"{self.path}: is not UTF-8") from error
        self._at = 0

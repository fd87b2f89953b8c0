"""Differences between two frames, so that only changes are sent.

A change is JSON, too. It describes how to get from the old value to the new one:

- for an object: an object with the changes or the new values of the changed members;
- for a list: `{"drop": n, "add": […]}` to remove the first n items and append others; or
  `{"at": {"3": …}}` with the changes of single items; or the whole new list;
- for anything else: the new value.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

# Lists move by one item per second since the last frame. If they moved further, send them whole.
_MOST_DROPPED = 8
# Changes to keep for watchers that missed frames.
_KEPT = 5

_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class TooDifferent(Exception):
    """The difference cannot be described as a change; send the whole new value."""


class Edition(NamedTuple):
    """A frame as it is sent: whole, or as the changes since an earlier one.

    `changes` are the latest ones up to this frame, by number, oldest first.
    """

    number: int
    whole: bytes
    changes: tuple[tuple[int, bytes], ...] = ()

    def since(self, number: int) -> Sequence[tuple[int, bytes]]:
        """The changes since frame `number`; empty if the whole frame must be sent."""
        known = [change for change in self.changes if change[0] > number]
        complete = len(known) == self.number - number
        return known if complete and sum(len(text) for _, text in known) < len(self.whole) else ()


class Editions:
    """Encodes each frame once for all watchers. Frames have consecutive numbers."""

    def __init__(self) -> None:
        self._frame: Any = None
        self._newest = Edition(0, b"")
        self._changes: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)

    def of(self, number: int, whole: bytes) -> Edition:
        """The edition of the newest frame, given its number and its JSON."""
        if number != self._newest.number:
            frame = _decode(whole)
            change = self._change_to(frame)
            if change is not None and number == self._newest.number + 1:
                self._changes.append((number, change))
            else:
                self._changes.clear()
            self._newest = Edition(number, whole, tuple(self._changes))
            self._frame = frame
        return self._newest

    def _change_to(self, frame: Any) -> bytes | None:
        if self._frame is None:
            return None
        try:
            return _encode(change_of(self._frame, frame))
        except TooDifferent:
            return None


def change_of(old: Any, new: Any) -> Any:
    """The change from one JSON value to another; they must differ. Raises TooDifferent."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() - new.keys():
            raise TooDifferent
        return {
            name: change_of(old[name], value) if name in old else value
            for name, value in new.items()
            if name not in old or old[name] != value
        }
    if isinstance(old, list):
        if isinstance(new, dict):
            raise TooDifferent
        return _change_of_list(old, new) if isinstance(new, list) else new
    return new


def _change_of_list(old: list[Any], new: list[Any]) -> Any:
    for dropped in range(min(len(old), _MOST_DROPPED + 1)):
        kept = len(old) - dropped
        if old[dropped:] == new[:kept]:
            return {"drop": dropped, "add": new[kept:]}
    if len(old) != len(new) or not all(isinstance(each, dict) for each in (*old, *new)):
        return new
    pairs = enumerate(zip(old, new, strict=True))
    try:
        return {"at": {str(n): change_of(was, now) for n, (was, now) in pairs if was != now}}
    except TooDifferent:
        return new

"""What changed between two frames, so that only that is sent.

A change is JSON too, and says how to get from the old value to the new one:

- of an object: an object with the changes of the members that changed, or their new values;
- of a list: `{"drop": n, "add": […]}`, without its first n items and with others at its end; or
  `{"at": {"3": …}}`, the changes of single items; or the whole new list;
- of anything else: the new value.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

# Lists move on by the seconds since the frame before: more than these are sent whole.
_MOST_DROPPED = 8
# Changes that are kept for those who were held up.
_KEPT = 5

_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class TooDifferent(Exception):
    """No change says it: send the new value whole."""


class Edition(NamedTuple):
    """A frame as it is sent: `whole` to those who have none, and what changed since to others.

    `changes` are those that led to it, by number, the oldest first.
    """

    number: int
    whole: bytes
    changes: tuple[tuple[int, bytes], ...] = ()

    def since(self, number: int) -> Sequence[tuple[int, bytes]]:
        """The changes for one who has that frame; none if only the whole frame will do."""
        known = [change for change in self.changes if change[0] > number]
        complete = len(known) == self.number - number
        return known if complete and sum(len(text) for _, text in known) < len(self.whole) else ()


class Editions:
    """Makes the newest frame an edition, once for all who watch. Frames are numbered in turn."""

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
    """How to get from one JSON value to the other, which must differ. Raises TooDifferent."""
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

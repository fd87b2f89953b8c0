"""W3C Trace Context, level 1: https://www.w3.org/TR/trace-context-1/"""

import re
from collections.abc import Sequence
from typing import NamedTuple

# A later version may have more text after the flags; version ff is invalid.
_traceparent = re.compile(
    r"(?:00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})"
    r"|(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)\Z"
)
_is_member = re.compile(
    r"[ \t]*(?:(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[ !-+\--<>-~]{0,255}[!-+\--<>-~][ \t]*)?\Z"
).match
_SAMPLED = 0x01
MOST_MEMBERS = 32
# Characters that every implementation must pass on; longer values are dropped.
LONGEST_STATE = 512


class Parent(NamedTuple):
    """The caller's place in a trace. The ids are lower-case hexadecimal, as on the wire."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str | None

    def child(self, span_id: str) -> str:
        """The `traceparent` for a child span of ours; undefined flags are not set."""
        return f"00-{self.trace_id}-{span_id}-{_SAMPLED if self.sampled else 0:02x}"


def parse(traceparents: Sequence[str], tracestates: Sequence[str]) -> Parent | None:
    """The parent in the lines of these two headers; None without a valid `traceparent`.

    Two `traceparent` lines are invalid. Several `tracestate` lines are joined in their order; the
    result is dropped if it is malformed or longer than LONGEST_STATE.
    """
    if len(traceparents) != 1:
        return None
    found = _traceparent.match(traceparents[0].strip(" \t"))
    if found is None:
        return None
    trace_id, span_id, flags = [each for each in found.groups() if each is not None]
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), _state(tracestates))


def _state(lines: Sequence[str]) -> str | None:
    state = ",".join(lines)
    members = state.split(",")
    if not state.strip(" \t,") or len(state) > LONGEST_STATE or len(members) > MOST_MEMBERS:
        return None
    return state if all(map(_is_member, members)) else None

"""The outbox's records, and what passes between its store and its relay. Times are Unix time.

A lane is the queue of one user's events.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct


class State(StrEnum):
    QUEUED = "queued"
    DELIVERED = "delivered"
    REFUSED = "refused"  # by the upstream, for good
    DEAD = "dead"  # given up


class NewDelivery(Struct, frozen=True, gc=False):
    """An event to be delivered.

    `idem_key` is the client's key, made unique over all clients. `fingerprint` is a hash of the
    body. Only `client` may read the delivery's state; anybody may if it is empty.
    """

    id: str
    idem_key: str | None
    fingerprint: bytes
    client: str
    user_id: str
    body: bytes
    upstream_key: str
    request_id: str
    traceparent: str


NEW_COLUMNS = ", ".join(NewDelivery.__struct_fields__)


class Delivery(Struct, frozen=True, gc=False):
    """An accepted event. `last_error` is JSON: the problem of its last attempt."""

    seq: int
    id: str
    client: str
    user_id: str
    body: bytes
    upstream_key: str
    request_id: str
    traceparent: str
    state: State
    attempts: int
    failures: int
    accepted_at: float
    give_up_at: float
    finished_at: float | None
    event_id: str | None
    last_error: bytes | None


COLUMNS = ", ".join(Delivery.__struct_fields__)
_STATE = Delivery.__struct_fields__.index("state")


def decode(row: Sequence[Any]) -> Delivery:
    """The delivery in a row of COLUMNS."""
    values = list(row)
    values[_STATE] = State(values[_STATE])
    return Delivery(*values)


class Accepted(NamedTuple):
    """`new` is False if an earlier request with the same key created this delivery."""

    id: str
    state: State
    new: bool


class Claim(Struct, frozen=True):
    """A lane that is ours until its lease ends, with the first of its queued events.

    `seen` is the lane's tail when `queued` was read. `complete`: `queued` was the whole queue then.
    `resumed`: the last owner did not release the lane, so it may have sent the first event.
    """

    user_id: str
    token: int
    seen: int
    queued: tuple[Delivery, ...]
    complete: bool
    resumed: bool = False


class Outcome(Struct, frozen=True, gc=False):
    """The result of one attempt; QUEUED if it failed.

    `attempts` and `failures` are added to the stored numbers.
    """

    seq: int
    state: State
    attempts: int = 1
    failures: int = 0
    event_id: str | None = None
    last_error: bytes | None = None


class Then(StrEnum):
    """What the owner of a lane does with it next."""

    KEEP = "keep"  # continue with it
    REST = "rest"  # pause it
    LEAVE = "leave"  # release it, unless an event was accepted meanwhile


class Step(Struct, frozen=True, gc=False):
    """A change to a lane by its owner, with the outcome of an event if there is one.

    `rest`, for REST, is in seconds from now.
    """

    user_id: str
    token: int
    seen: int
    then: Then
    outcome: Outcome | None = None
    rest: float = 0.0


class Progress(StrEnum):
    FENCED = "fenced"  # another worker owns the lane now: nothing was written
    KEPT = "kept"  # and the lease was renewed
    LEFT = "left"
    MORE = "more"  # kept instead of left: an event was accepted meanwhile


class Figures(NamedTuple):
    """`oldest` is the age in seconds of the oldest queued event, 0 if there is none."""

    pending: int
    oldest: float


def progress(step: Step, lane: tuple[int, int] | None) -> Progress:
    """The result of a step on a lane with this tail and token (None: the lane was deleted)."""
    if lane is None or lane[1] != step.token:
        return Progress.FENCED
    if step.then is Then.LEAVE:
        return Progress.LEFT if lane[0] == step.seen else Progress.MORE
    return Progress.KEPT if step.then is Then.KEEP else Progress.LEFT

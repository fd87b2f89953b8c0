"""What the outbox keeps and what passes between its store and its relay. Times are Unix time."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct


class State(StrEnum):
    QUEUED = "queued"
    DELIVERED = "delivered"
    REFUSED = "refused"  # the upstream said no for good
    DEAD = "dead"  # given up


class NewDelivery(Struct, frozen=True, gc=False):
    """An event to be delivered.

    `idem_key` is the client's key, made unique over clients; `fingerprint` tells one body from
    another; `client` may ask what became of it, anybody if it is empty.
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
    """An event that was accepted. `last_error` is JSON: the problem that its last attempt met."""

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
    """The delivery of a row of COLUMNS."""
    values = list(row)
    values[_STATE] = State(values[_STATE])
    return Delivery(*values)


class Accepted(NamedTuple):
    """`new` is false for the key of an earlier request, whose delivery this is."""

    id: str
    state: State
    new: bool


class Claim(Struct, frozen=True):
    """A lane that is ours until its lease ends, with the first of what is queued in it.

    `seen` is how much had been accepted when `queued` was read. `complete`: nothing else was
    queued then. `resumed`: its last owner did not give it back, so it may have sent the first.
    """

    user_id: str
    token: int
    seen: int
    queued: tuple[Delivery, ...]
    complete: bool
    resumed: bool = False


class Outcome(Struct, frozen=True, gc=False):
    """What became of one event; QUEUED if its attempt failed.

    `attempts` and `failures` are added to those before.
    """

    seq: int
    state: State
    attempts: int = 1
    failures: int = 0
    event_id: str | None = None
    last_error: bytes | None = None


class Then(StrEnum):
    """What its owner does with a lane next."""

    KEEP = "keep"  # and work on
    REST = "rest"  # come back after a while
    LEAVE = "leave"  # nothing is queued, if nothing came meanwhile


class Step(Struct, frozen=True, gc=False):
    """A change to a lane by its owner, with the outcome of an event if there is one.

    `rest` is in seconds from now, for REST.
    """

    user_id: str
    token: int
    seen: int
    then: Then
    outcome: Outcome | None = None
    rest: float = 0.0


class Progress(StrEnum):
    FENCED = "fenced"  # the lane is another's by now: nothing was written
    KEPT = "kept"  # and its lease begins anew
    LEFT = "left"
    MORE = "more"  # kept, not left: something has been accepted meanwhile


class Figures(NamedTuple):
    """`oldest` is the age in seconds of the oldest that is queued, 0 if none is."""

    pending: int
    oldest: float


def progress(step: Step, lane: tuple[int, int] | None) -> Progress:
    """What a step does to its lane, which has this tail and token (None: it is gone)."""
    if lane is None or lane[1] != step.token:
        return Progress.FENCED
    if step.then is Then.LEAVE:
        return Progress.LEFT if lane[0] == step.seen else Progress.MORE
    return Progress.KEPT if step.then is Then.KEEP else Progress.LEFT

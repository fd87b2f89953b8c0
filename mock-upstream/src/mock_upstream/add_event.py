from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, NamedTuple

import msgspec

from mock_upstream.cycle import Cycle, Turns
from mock_upstream.data import Event
from mock_upstream.store import Store

MAX_KEYS = 10_000

# What RFC 3986 lets a path segment hold unescaped, but for "." and "..".
_ID = r"\A(?!\.{1,2}\Z)[A-Za-z0-9._~!$&'()*+,;=:@-]{1,128}\Z"


class _NewEvent(msgspec.Struct, rename="camel", frozen=True):
    user_id: str
    title: Annotated[str, msgspec.Meta(min_length=1)]
    description: str = ""
    id: Annotated[str, msgspec.Meta(pattern=_ID)] | None = None


class Outcome(msgspec.Struct, omit_defaults=True):
    success: bool
    message: str | None = None
    id: str | None = None


class Answer(NamedTuple):
    """What addEvent says; `event` is what is stored, None if the call was refused."""

    status: int
    outcome: Outcome
    event: Event | None = None


class _Remembered(NamedTuple):
    new: _NewEvent
    answer: Answer


_decode = msgspec.json.Decoder(_NewEvent).decode


class AddEvent:
    """Stores events while its cycle accepts.

    A body that is itself wrong (JSON, fields, form of an id) is told so whatever the cycle says
    and does not move it. Nor does an `Idempotency-Key` whose call was accepted before: with the
    same event it gets the first answer, with another it is refused with 422. Every other call
    moves the cycle, and only one that it lets in is looked at further: an unknown user, an id
    already taken. A refused call is not remembered, so its key may be tried again. The latest
    `max_keys` keys are kept.
    """

    def __init__(
        self,
        store: Store,
        cycle: Cycle,
        max_keys: int = MAX_KEYS,
        *,
        own_ids: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own_ids`: give every event a number, whatever id its sender proposed."""
        self._store = store
        self._started_with = cycle
        self._max_keys = max_keys
        self._own_ids = own_ids
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}
        self.reset()

    @property
    def cycle(self) -> Cycle:
        return self._turns.cycle

    def set_cycle(self, cycle: Cycle) -> None:
        """Begin this cycle with its first call."""
        self._turns = Turns(cycle, self._clock)

    def reset(self) -> None:
        """Forget the keys, and begin the first cycle anew."""
        self._remembered.clear()
        self._ids = itertools.count(1001)
        self.set_cycle(self._started_with)

    def __call__(self, body: bytes, idempotency_key: str | None) -> Answer:
        try:
            new = _decode(body)
        except msgspec.DecodeError as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        remembered = self._remembered.get(idempotency_key) if idempotency_key else None
        if remembered is None:
            return self._refusal(new) or self._accept(new, idempotency_key)
        if remembered.new != new:
            return _refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "this Idempotency-Key came with another event before",
            )
        return remembered.answer

    def _refusal(self, new: _NewEvent) -> Answer | None:
        if not self._turns.accepts_next():
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded, try again later")
        if self._store.user(new.user_id) is None:
            return _refused(HTTPStatus.NOT_FOUND, f"unknown user {new.user_id}")
        if not self._own_ids and new.id is not None and self._store.event(new.id) is not None:
            return _refused(HTTPStatus.CONFLICT, f"event {new.id} exists")
        return None

    def _accept(self, new: _NewEvent, idempotency_key: str | None) -> Answer:
        event_id = None if self._own_ids else new.id
        event = Event(event_id or self._free_id(), new.user_id, new.title, new.description)
        self._store.add(event)
        answer = Answer(HTTPStatus.OK, Outcome(success=True, id=event.id), event)
        if idempotency_key:
            self._remembered[idempotency_key] = _Remembered(new, answer)
            if len(self._remembered) > self._max_keys:
                del self._remembered[next(iter(self._remembered))]
        return answer

    def _free_id(self) -> str:
        return next(
            event_id for event_id in map(str, self._ids) if self._store.event(event_id) is None
        )


def _refused(status: HTTPStatus, message: str) -> Answer:
    return Answer(status, Outcome(success=False, message=message))

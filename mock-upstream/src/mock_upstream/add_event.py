from __future__ import annotations

import itertools
from http import HTTPStatus
from typing import Annotated

import msgspec

from mock_upstream.data import Event
from mock_upstream.store import Store

MAX_KEYS = 10_000


class Cycle(msgspec.Struct, forbid_unknown_fields=True):
    """Accepts so many, refuses so many, and so on round. With `refuse` 0 it never refuses."""

    accept: Annotated[int, msgspec.Meta(ge=0)]
    refuse: Annotated[int, msgspec.Meta(ge=0)]

    def accepts(self, call: int) -> bool:
        """Whether the call of this number, counted from 0, is accepted."""
        return not self.refuse or call % (self.accept + self.refuse) < self.accept


class _NewEvent(msgspec.Struct, rename="camel"):
    user_id: str
    title: Annotated[str, msgspec.Meta(min_length=1)]
    description: str = ""
    id: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")] | None = None


class Outcome(msgspec.Struct, omit_defaults=True):
    success: bool
    message: str | None = None
    id: str | None = None


_decode = msgspec.json.Decoder(_NewEvent).decode


class AddEvent:
    """Stores events while its cycle accepts.

    A body that is itself wrong (JSON, fields, form of an id) is told so whatever the cycle says
    and does not move it; nor does a repeated `Idempotency-Key`, which gets the answer of the
    first accepted call. Every other call moves it, and only one that it lets in is looked at
    further: an unknown user, an id already taken. A refused call is not remembered, so its key
    may be tried again. The latest `max_keys` keys are kept.
    """

    def __init__(self, store: Store, cycle: Cycle, max_keys: int = MAX_KEYS) -> None:
        self._store = store
        self._started_with = cycle
        self._max_keys = max_keys
        self._accepted: dict[str, Outcome] = {}
        self.cycle = cycle
        self.reset()

    def set_cycle(self, cycle: Cycle) -> None:
        """Begin this cycle with its first call."""
        self.cycle = cycle
        self._calls = itertools.count()

    def reset(self) -> None:
        """Forget the keys, and begin the first cycle anew."""
        self._accepted.clear()
        self._ids = itertools.count(1001)
        self.set_cycle(self._started_with)

    def __call__(self, body: bytes, idempotency_key: str | None) -> tuple[int, Outcome]:
        """The status and what to say with it."""
        try:
            new = _decode(body)
        except msgspec.DecodeError as error:
            return HTTPStatus.BAD_REQUEST, Outcome(success=False, message=str(error))
        if idempotency_key is not None and idempotency_key in self._accepted:
            return HTTPStatus.OK, self._accepted[idempotency_key]
        return self._refusal(new) or (HTTPStatus.OK, self._accept(new, idempotency_key))

    def _refusal(self, new: _NewEvent) -> tuple[int, Outcome] | None:
        if not self.cycle.accepts(next(self._calls)):
            message = "overloaded, try again later"
            return HTTPStatus.SERVICE_UNAVAILABLE, Outcome(success=False, message=message)
        if self._store.user(new.user_id) is None:
            message = f"unknown user {new.user_id}"
            return HTTPStatus.NOT_FOUND, Outcome(success=False, message=message)
        if new.id is not None and self._store.event(new.id) is not None:
            return HTTPStatus.CONFLICT, Outcome(success=False, message=f"event {new.id} exists")
        return None

    def _accept(self, new: _NewEvent, idempotency_key: str | None) -> Outcome:
        event_id = new.id or self._free_id()
        self._store.add(Event(event_id, new.user_id, new.title, new.description))
        outcome = Outcome(success=True, id=event_id)
        if idempotency_key is not None:
            self._accepted[idempotency_key] = outcome
            if len(self._accepted) > self._max_keys:
                del self._accepted[next(iter(self._accepted))]
        return outcome

    def _free_id(self) -> str:
        return next(
            event_id for event_id in map(str, self._ids) if self._store.event(event_id) is None
        )

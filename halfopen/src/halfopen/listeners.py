import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from halfopen.events import Event

E = TypeVar("E", bound=Event)

logger = logging.getLogger("halfopen")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    listener: Callable[[Any], object]
    once: bool


class Listeners:
    """Hands events to listeners, in order and one at a time, without a lock that anyone waits for.

    Whoever finds nobody delivering delivers all that is queued. A listener that uses the breaker,
    or another thread, just queues what happens, and it is delivered in its turn.
    """

    def __init__(self) -> None:
        self._entries: dict[type[Event], tuple[_Entry, ...]] = {}
        self._changing = Lock()
        self._queue: deque[Event] = deque()
        self._turn = Lock()  # only ever tried

    def __contains__(self, event: type[Event]) -> bool:
        return event in self._entries

    def add(
        self, event: type[E], listener: Callable[[E], object], *, once: bool
    ) -> Callable[[], None]:
        entry = _Entry(listener, once)
        with self._changing:
            self._entries[event] = (*self._entries.get(event, ()), entry)
        return partial(self._remove, event, entry)

    def queue(self, event: Event) -> None:
        self._queue.append(event)

    def deliver(self) -> None:
        # Looks again after its turn: what was queued in between had found the turn taken.
        while self._queue and self._turn.acquire(blocking=False):
            try:
                while self._queue:
                    self._tell(self._queue.popleft())
            finally:
                self._turn.release()

    def _tell(self, event: Event) -> None:
        for entry in self._entries.get(type(event), ()):
            if entry.once:
                self._remove(type(event), entry)
            try:
                entry.listener(event)
            except Exception:
                logger.exception("a listener of %s raised", type(event).__name__)

    def _remove(self, event: type[Event], entry: _Entry) -> None:
        with self._changing:
            left = tuple(e for e in self._entries.get(event, ()) if e is not entry)
            if left:
                self._entries[event] = left
            else:
                self._entries.pop(event, None)

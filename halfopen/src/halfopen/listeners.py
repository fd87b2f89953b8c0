import logging
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from halfopen.events import Event

E = TypeVar("E", bound=Event)

logger = logging.getLogger("halfopen")


class Listeners:
    """Hands events to their listeners, one at a time and in order, outside the circuit's lock.

    Whoever finds nobody delivering delivers everything that is queued. A listener that calls back
    into the breaker, or another thread, only queues: its event follows when the turn comes to it.
    """

    __slots__ = ("_listeners", "_lock", "_queue", "_turn")

    def __init__(self) -> None:
        self._listeners: dict[type[Event], tuple[Callable[[Any], object], ...]] = {}
        self._lock = Lock()  # guards changes to _listeners
        self._queue: deque[Event] = deque()
        self._turn = Lock()  # never waited for

    def wants(self, event: type[Event]) -> bool:
        return event in self._listeners

    def add(self, event: type[E], listener: Callable[[E], object]) -> Callable[[], None]:
        def entry(happened: E) -> None:
            # Not the listener itself: subscribed twice, it is two entries to unsubscribe.
            listener(happened)

        with self._lock:
            self._listeners[event] = (*self._listeners.get(event, ()), entry)

        def unsubscribe() -> None:
            with self._lock:
                left = tuple(e for e in self._listeners.get(event, ()) if e is not entry)
                if left:
                    self._listeners[event] = left
                else:
                    self._listeners.pop(event, None)

        return unsubscribe

    def queue(self, event: Event) -> None:
        self._queue.append(event)

    def deliver(self) -> None:
        # Looks again after giving up the turn: an event queued in between found the turn taken.
        while self._queue and self._turn.acquire(blocking=False):
            try:
                while self._queue:
                    self._tell(self._queue.popleft())
            finally:
                self._turn.release()

    def _tell(self, event: Event) -> None:
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of %s raised", type(event).__name__)

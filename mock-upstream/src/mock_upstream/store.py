from __future__ import annotations

from collections.abc import Iterator

from mock_upstream.data import DataSet, Event, User

MAX_ADDED = 100_000


class Store:
    """The data set one starts with, and over it the events that were added.

    It keeps the latest `max_added` of those, so a benchmark that writes for hours does not fill
    the memory.
    """

    def __init__(self, data: DataSet, max_added: int = MAX_ADDED) -> None:
        self._data = data
        self._max_added = max_added
        self._added: dict[str, Event] = {}
        self._added_by_user: dict[str, dict[str, None]] = {}

    def user(self, user_id: str) -> User | None:
        user = self._data.user(user_id)
        return None if user is None else self._with_added(user)

    def event(self, event_id: str) -> Event | None:
        return self._added.get(event_id) or self._data.event(event_id)

    def users(self) -> Iterator[User]:
        return map(self._with_added, self._data.users())

    def events(self) -> Iterator[Event]:
        """Users in order, and each user's events in the order of the user's list.

        Events may be added meanwhile.
        """
        for user in self.users():
            yield from self._events_of(user)

    def events_of(self, user_id: str) -> Iterator[Event]:
        """One user's events in the order of the user's list; none for an unknown user."""
        user = self.user(user_id)
        return iter(()) if user is None else self._events_of(user)

    def _events_of(self, user: User) -> Iterator[Event]:
        return (event for event in map(self.event, user.events) if event is not None)

    def _with_added(self, user: User) -> User:
        added = self._added_by_user.get(user.id)
        return User(user.id, user.name, [*user.events, *added]) if added else user

    def add(self, event: Event) -> None:
        """Store an event whose id is free and whose user exists."""
        self._added[event.id] = event
        self._added_by_user.setdefault(event.user_id, {})[event.id] = None
        if len(self._added) > self._max_added:
            oldest = self._added.pop(next(iter(self._added)))
            del self._added_by_user[oldest.user_id][oldest.id]

    def clear(self) -> None:
        """Forget every added event."""
        self._added.clear()
        self._added_by_user.clear()

"""The users and events an upstream begins with: three by hand, or any number by arithmetic."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import msgspec


class User(msgspec.Struct, frozen=True):
    id: str
    name: str
    events: list[str]


class Event(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    user_id: str
    title: str
    description: str


class DataSet(Protocol):
    def users(self) -> Iterator[User]: ...
    def user(self, user_id: str) -> User | None: ...
    def event(self, event_id: str) -> Event | None: ...


class SampleData:
    """Three users: one with two events, one with none, one with one."""

    def __init__(self) -> None:
        events = [
            Event("101", "1", "Team breakfast", "Coffee and rolls in the small kitchen."),
            Event("102", "1", "Release review", "What went well, what to change next time."),
            Event("103", "3", "Piano lesson", "Bring the second book."),
        ]
        names = {"1": "Alice Johnson", "2": "Bob Anderson", "3": "Carla Mendez"}
        self._events = {event.id: event for event in events}
        self._users = {
            user_id: User(user_id, name, [event.id for event in events if event.user_id == user_id])
            for user_id, name in names.items()
        }

    def users(self) -> Iterator[User]:
        return iter(self._users.values())

    def user(self, user_id: str) -> User | None:
        return self._users.get(user_id)

    def event(self, event_id: str) -> Event | None:
        return self._events.get(event_id)


_FIRST_NAMES = (
    *("Amara", "Benedikt", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiroshi"),
    *("Ines", "Jakub", "Keiko", "Lars", "Maya", "Nikhil", "Olivia", "Pablo"),
)
_LAST_NAMES = (
    *("Abara", "Bauer", "Costa", "Dimitrov", "Eriksen", "Fontaine", "Garcia", "Haddad"),
    *("Ivanova", "Jansen", "Kowalski", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Patel"),
)
_ACTIVITIES = (
    *("Planning", "Breakfast", "Workshop", "Retrospective", "Interview", "Walk", "Demo", "Dinner"),
    *("Budget review", "Rehearsal", "Site visit", "Training", "Call", "Photo shoot"),
    *("Book club", "Hand-over"),
)
_COMPANY = (
    *("the design team", "new colleagues", "the neighbours", "a customer", "the board"),
    *("the night shift", "old friends", "the suppliers", "the choir", "the auditors"),
    *("the interns", "the architects", "the press", "the volunteers", "the band", "the family"),
)
_PLACES = (
    *("the small kitchen", "room 4", "the library", "the roof garden", "the town hall"),
    *("the harbour", "the main hall", "the studio", "the workshop", "the old station"),
    *("the park", "the canteen", "the museum", "the lab", "the bookshop", "the lobby"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class GeneratedData:
    """Users `1` to `users`; the third event of user 7 is `7-3`.

    Everything is computed from the seed and the id when it is asked for, so a million events
    take no memory and no time to set up.
    """

    def __init__(self, users: int, events_per_user: int, seed: int) -> None:
        self._users = users
        self._events_per_user = events_per_user
        self._seed = seed

    def users(self) -> Iterator[User]:
        return (self._user(str(number)) for number in range(1, self._users + 1))

    def user(self, user_id: str) -> User | None:
        return self._user(user_id) if _is_number(user_id, self._users) else None

    def _user(self, user_id: str) -> User:
        chance = self._chance(user_id)
        name = f"{_FIRST_NAMES[chance & 15]} {_LAST_NAMES[chance >> 4 & 15]}"
        return User(user_id, name, [f"{user_id}-{n}" for n in range(1, self._events_per_user + 1)])

    def event(self, event_id: str) -> Event | None:
        user_id, _, number = event_id.partition("-")
        if not (_is_number(user_id, self._users) and _is_number(number, self._events_per_user)):
            return None
        chance = self._chance(event_id)
        return Event(
            event_id,
            user_id,
            f"{_ACTIVITIES[chance & 15]} with {_COMPANY[chance >> 4 & 15]}",
            f"In {_PLACES[chance >> 8 & 15]}, {_DAYS[(chance >> 12) % 7]} "
            f"at {8 + (chance >> 16) % 12}:{(chance >> 20) % 4 * 15:02}.",
        )

    def _chance(self, name: str) -> int:
        return zlib.crc32(f"{self._seed}/{name}".encode())


def _is_number(text: str, highest: int) -> bool:
    """Whether `text` spells a number from 1 to `highest`, in the one way we spell it ourselves."""
    if not (text.isascii() and text.isdigit()) or text[0] == "0" or len(text) > len(str(highest)):
        return False
    return int(text) <= highest

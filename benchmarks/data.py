"""What every upstream of the benchmark answers, and what a correct server makes of it.

A user's id ends in the number of its events (`anything-10`), an event's id in its place
(`anything-10-3`): any number of distinct users exist without being stored anywhere.
"""

import json

USERS = [
    {"id": "alice-2", "name": "Alice", "events": ["alice-2-0", "alice-2-1"]},
    {"id": "bob-0", "name": "Bob", "events": []},
]
NEW_EVENT = {"userId": "alice-2", "title": "Launch", "description": "Cake in the lobby"}
ADDED = {"success": True}
REFUSED = {"success": False, "message": "too busy"}


def user(user_id: str) -> dict:
    count = int(user_id.rpartition("-")[2])
    events = [f"{user_id}-{place}" for place in range(count)]
    return {"id": user_id, "name": f"User {user_id}", "events": events}


def event(event_id: str) -> dict:
    return {
        "id": event_id,
        "userId": event_id.rpartition("-")[0],
        "title": f"Event {event_id}",
        "description": "An hour in the large room on the first floor",
    }


def events_of(user_id: str) -> list[dict]:
    return [event(event_id) for event_id in user(user_id)["events"]]


EVENTS = events_of("alice-2")


def encode(body: object) -> str:
    return json.dumps(body, separators=(",", ":"))

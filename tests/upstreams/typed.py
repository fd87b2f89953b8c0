"""An API with types, numbers as ids and nulls: FastAPI's habits. It gives new events its own ids.

`uvicorn --app-dir tests/upstreams typed:app`, or under gunicorn.
"""

import json
from pathlib import Path

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

_data = json.loads(Path(__file__).with_name("numbers.json").read_text())


class User(BaseModel):
    id: int
    name: str | None = None
    events: list[int] | None = None


class NewEvent(BaseModel):
    userId: int  # noqa: N815  the wire's name
    title: str
    description: str | None = None


class Event(NewEvent):
    id: int


users = {each["id"]: User(**each) for each in _data["users"]}
events = {each["id"]: Event(**each) for each in _data["events"]}
app = FastAPI()


@app.get("/users")
async def get_users() -> list[User]:
    return list(users.values())


@app.get("/users/{user_id}")
async def get_user(user_id: int) -> User:
    if user_id not in users:
        raise HTTPException(404)
    return users[user_id]


@app.get("/events")
async def get_events(userId: int | None = None) -> list[Event]:  # noqa: N803  as above
    return [each for each in events.values() if userId in {None, each.userId}]


@app.get("/events/{event_id}")
async def get_event(event_id: int) -> Event:
    if event_id not in events:
        raise HTTPException(404)
    return events[event_id]


@app.post("/events", status_code=201)
async def add_event(new: NewEvent) -> Event:
    if new.userId not in users:
        raise HTTPException(404)
    event = Event(id=max(events) + 1, **new.model_dump())
    events[event.id] = event
    return event
